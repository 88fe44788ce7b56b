"""The descriptions of parameters in a docstring (Google, NumPy or Sphinx style), if `docstring_parser` is installed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def parameter_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Return the descriptions of the parameters, by name; none without the extra `docstrings`."""
    text = inspect.getdoc(function)
    if not text:
        return {}
    try:
        from docstring_parser import ParseError, parse
    except ImportError:
        return {}
    try:
        found = parse(text)
    except ParseError:
        return {}
    return {one.arg_name: " ".join(one.description.split()) for one in found.params if one.description}
