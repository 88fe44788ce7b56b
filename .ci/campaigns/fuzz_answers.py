#!/usr/bin/env python3
"""Fuzz the httptools transport: atheris writes answers of servers, which are parsed whole and cut into pieces.

    pip install atheris '.[fast,dev]'
    python .ci/campaigns/fuzz_answers.py -max_total_time=300

An answer has to be the same however it is cut, or an error each time; nothing else may be raised, and nobody may wait
for ever. What makes it fail is kept in a file `crash-...` here, which can be given as an argument to see it again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "transport")]

with atheris.instrument_imports(include=["asyncruns.transport", "wireless"]):
    from test_framings import FRAMINGS, WRONG, WRONG_IF_STRICT
    from wireless import check_any_bytes


def check(data: bytes) -> None:
    """Take the first bytes for where the rest is cut."""
    count = data[0] % 6 if data else 0
    check_any_bytes(data[1 + count :], list(data[1 : 1 + count]))


def main() -> None:
    with tempfile.TemporaryDirectory() as corpus:
        answers = [*(answer for answer, _, _, _ in FRAMINGS.values()), *WRONG.values(), *WRONG_IF_STRICT.values()]
        for number, answer in enumerate(answers):
            (Path(corpus) / str(number)).write_bytes(bytes([number % 6, *range(7, 7 + 30 * (number % 6), 30)]) + answer)
        atheris.Setup([*sys.argv, corpus, "-max_len=2000"], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
