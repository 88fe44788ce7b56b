"""Reads the input file of a batch, and finds what is wrong with it as OpenAI does, line by line.

The codes are those of https://learn.microsoft.com/azure/ai-services/openai/how-to/batch#troubleshooting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from asyncruns.testing.emulator.fields import Body

MOST_LINES: Final = 50_000
_MOST_ERRORS: Final = 100  # that are listed


@dataclass(frozen=True, slots=True, eq=False)
class FileInput:
    """The requests in a file; their bodies are read again when they are needed.

    Attributes:
        model: The model of the first request, or "".
        errors: What is wrong with the file.
    """

    content: bytes | memoryview
    custom_ids: Sequence[str]
    model: str
    errors: Sequence[Body]

    def requests(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the custom id and the body of each request of a file that has no errors."""
        for _, raw in _lines(self.content):
            line = msgspec.json.decode(raw)
            yield line["custom_id"], line["body"]


def read_input(content: bytes | memoryview, endpoint: str) -> FileInput:
    """Read and check an input file."""
    reader = _Reader(endpoint)
    for number, raw in _lines(content):
        if reader.is_full:
            break
        reader.add(number, raw)
    reader.finish()
    return FileInput(content, tuple(reader.custom_ids), reader.model or "", tuple(reader.errors))


class _Reader:
    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.custom_ids: dict[str, None] = {}
        self.model: str | None = None
        self.errors: list[Body] = []
        self._count = 0

    @property
    def is_full(self) -> bool:
        return len(self.errors) >= _MOST_ERRORS or self._count > MOST_LINES

    def add(self, number: int, raw: bytes) -> None:
        self._count += 1
        try:
            line = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            line = None
        if not isinstance(line, dict):
            self._complain("invalid_json_line", "This line is not parseable as valid JSON.", number)
            return
        wrong = self._wrong_with(line)
        if wrong is not None:
            self._complain(*wrong[:2], number, param=wrong[2])
        if isinstance(custom_id := line.get("custom_id"), str):
            self.custom_ids[custom_id] = None

    def finish(self) -> None:
        if not self._count:
            self._complain("empty_file", "The input file is empty. Please ensure that the batch contains requests.")
        elif self._count > MOST_LINES:
            text = f"The number of requests in the batch exceeds the limit of {MOST_LINES}."
            self.errors[:] = []
            self._complain("too_many_tasks", text)

    def _wrong_with(self, line: Body) -> tuple[str, str, str | None] | None:
        """Return the code, the message and the parameter of an error of a line, or None."""
        for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
            if not isinstance(line.get(name), kind):
                return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
        custom_id, body = line["custom_id"], line["body"]
        if custom_id in self.custom_ids:
            text = (
                f"The custom_id '{custom_id}' for this request is a duplicate of another request. The custom_id "
                "parameter must be unique for each request in a batch."
            )
            return "duplicate_custom_id", text, "custom_id"
        if line["method"] != "POST":
            return "invalid_method", "The method must be POST.", "method"
        if line["url"] != self._endpoint:
            return "url_mismatch", "The URL provided for this request does not match the batch endpoint.", "url"
        return self._wrong_model(body.get("model"))

    def _wrong_model(self, model: object) -> tuple[str, str, str | None] | None:
        if self.model is None:
            self.model = model if isinstance(model, str) else None
        elif model != self.model:
            text = f"The model '{model}' provided for this request does not match the rest of the batch."
            return "model_mismatch", text, "body.model"
        return None

    def _complain(self, code: str, message: str, line: int | None = None, *, param: str | None = None) -> None:
        self.errors.append({"code": code, "message": message, "param": param, "line": line})


def _lines(content: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers from 1."""
    text, start, number = bytes(content), 0, 0
    while start < len(text):
        stop = text.find(b"\n", start)
        stop = len(text) if stop < 0 else stop
        number += 1
        if line := text[start:stop].strip():
            yield number, line
        start = stop + 1
