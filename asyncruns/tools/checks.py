"""Check the arguments of a toolset, so that a mistake raises where it is made and not at the first call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from asyncruns.errors import ConfigurationError

_HOW: Final = "Pass functions as Toolset([function]) or Toolset({'name': function})"


def check_positive(name: str, number: object) -> None:
    """Check that a value is a positive number, or None.

    Raises:
        ConfigurationError: It is neither.
    """
    if number is None:
        return
    if not isinstance(number, int | float) or not number > 0:  # `not >`, so that NaN is refused as well
        raise ConfigurationError(f"{name} must be more than 0, not {number!r}; None means no limit.")


def check_callable(what: str, value: object, *, optional: bool = False) -> None:
    """Check that a value can be called, or is None if it is optional. The error shows its type, not its repr.

    Raises:
        ConfigurationError: It cannot be called.
    """
    if callable(value) or (optional and value is None):
        return
    given = "None" if value is None else f"of the type {type(value).__name__}"
    advice = " Decorate the function below it, or add the bound method." if isinstance(value, classmethod) else ""
    raise ConfigurationError(f"{what} must be a function or another callable; it is {given}.{advice}")


def named_functions(functions: object) -> Iterator[tuple[str | None, Callable[..., Any]]]:
    """Yield the functions that are passed to a toolset, each with its name, or None for the function's own.

    Raises:
        ConfigurationError: `functions` is neither a mapping of names to functions nor an iterable of functions.
    """
    if isinstance(functions, Mapping):
        for name, function in cast("Mapping[object, Any]", functions).items():
            if not isinstance(name, str):
                raise ConfigurationError(f"The name of a tool must be a string, not {name!r}. {_HOW}.")
            check_callable(f"The tool {name!r}", function)
            yield name, function
        return
    # A string is an iterable, but of characters: refuse it here, with a message that helps.
    if isinstance(functions, str | bytes) or not isinstance(functions, Iterable):
        raise ConfigurationError(
            f"A toolset cannot be made from a value of the type {type(functions).__name__}. {_HOW}."
        )
    for position, function in enumerate(functions):
        check_callable(f"The tool at position {position}", function)
        yield None, function
