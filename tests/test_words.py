"""Words that were to go stay gone: docstrings begin with a plain verb, and a poll is called a poll."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [path for path in ROOT.rglob("*.md") if not {".git", ".venv", ".pytest_cache"} & set(path.parts)]
FILES = sorted([*ROOT.glob("asyncruns/**/*.py"), *PAGES])

LOOKS_LIKE = r"(?!-up| (?:like|up|them up|for|through|into|fatal|random|complete|alive)\b)"  # ordinary idiom
ODD = re.compile(
    rf"\b(?:look|looks|looked|looking)\b{LOOKS_LIKE}|\bby and by\b|\bso long\b(?! as\b)|\b[Ww]hoever\b"
    r"|(?:^|[.:;] )Who\b(?![^.]*\?)|\bsomebody\b|\blets? go\b|\btakes no notice\b|\bcomes to nothing\b"
)
OPENING = re.compile(r"(?:Give|Gives|Say|Says|Tell|Tells|Let)\b(?! up)")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_words_that_were_to_go_are_gone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    prose = (
        list(_prose(text)) if path.suffix == ".py" else re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S).splitlines()
    )
    assert [line for line in prose if ODD.search(re.sub(r"`[^`]*`", "", line))] == []


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.suffix == ".py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_docstrings_of_functions_begin_with_a_plain_verb(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if OPENING.match(ast.get_docstring(node) or "")] == []


def _prose(text: str) -> Iterator[str]:
    """Yield the lines of the comments and strings of a module."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from token.string.splitlines()
