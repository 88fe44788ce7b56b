"""What users see of a class in the interpreter: `help()` works, and the annotations of values resolve."""

from __future__ import annotations

import inspect
import pydoc
from typing import Any, Final, get_type_hints

import msgspec
import pytest

import asyncruns.testing
import asyncruns.wire

CLASSES: Final = [
    pytest.param(found, id=f"{module.__name__}.{name}")
    for module in (asyncruns, asyncruns.testing, asyncruns.wire)
    for name in module.__all__
    if inspect.isclass(found := getattr(module, name))
]


@pytest.mark.parametrize("kind", CLASSES)
def test_help_shows_every_public_class(kind: type[Any]) -> None:
    assert kind.__name__ in pydoc.render_doc(kind)


@pytest.mark.parametrize("kind", CLASSES)
def test_the_annotations_of_values_resolve(kind: type[Any]) -> None:
    if issubclass(kind, msgspec.Struct):
        assert get_type_hints(kind).keys() >= set(kind.__struct_fields__)
