"""The functions that a model may call: their schemas, their arguments, their calling, their outputs."""

from __future__ import annotations

from asyncruns.tools.results import encode_output, error_output
from asyncruns.tools.toolset import Toolset

__all__ = ["Toolset", "encode_output", "error_output"]
