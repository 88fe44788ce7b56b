"""FACTS.md is complete: it lists every fact and every defect once, with tests that exist and are run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "tests" / "FACTS.md").read_text(encoding="utf-8")
FACTS, DEFECTS = (re.findall(r"^\| (\d+) \| (.+?) \| (.*) \|$", part, re.MULTILINE) for part in TEXT.split("\n## ")[1:])
ROWS = [
    pytest.param(tests, id=f"{kind}-{number}")
    for kind, rows in (("fact", FACTS), ("defect", DEFECTS))
    for number, _, tests in rows
]
NOT_YET = "not yet: there is no journal"
# These are about error bodies, creates, threads and streams. Number 2 is about the lifecycle, which both shells share.
NOT_OF_A_FLEET = {2, 9, 26, 29, 30, 31, 57}


@cache
def collected(path: str) -> dict[str, set[str]]:
    """Return the test functions of a file with their arguments, without those that are skipped or expected to fail."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        function.name: {argument.arg for argument in function.args.args}
        for function in functions
        if not any(re.search("skip|xfail", ast.unparse(decorator)) for decorator in function.decorator_list)
    }


def named_in(tests: str) -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)


def is_of_a_fleet(path: str, name: str) -> bool:
    return path.startswith("tests/fleet/") or not collected(path)[name].isdisjoint({"shell", "wire"})


@pytest.mark.parametrize(("rows", "last"), [(FACTS, 60), (DEFECTS, 16)], ids=["facts", "defects"])
def test_every_number_is_listed_once(rows: list[tuple[str, str, str]], last: int) -> None:
    assert [int(number) for number, _, _ in rows] == list(range(1, last + 1))


@pytest.mark.parametrize("tests", ROWS)
def test_every_claim_has_tests_that_exist(tests: str) -> None:
    for claim in tests.split("<br>"):
        if claim.endswith(NOT_YET):
            continue
        named = named_in(claim)
        assert named, f"no test: {claim}"
        assert claim.count("::") == len(named), f"a test is not written as `path::name`: {claim}"
        for path, name in named:
            assert name in collected(path), f"{path} has no {name}"


def test_nothing_is_missing() -> None:
    lacking = {int(number) for number, _, tests in FACTS if "not yet" in tests}
    assert lacking == set()
    assert not any("not yet" in tests for _, _, tests in DEFECTS)


def test_every_fact_has_a_test_of_a_fleet_except_those_listed() -> None:
    lacking = {int(number) for number, _, tests in FACTS if not any(is_of_a_fleet(*test) for test in named_in(tests))}
    assert lacking == NOT_OF_A_FLEET
