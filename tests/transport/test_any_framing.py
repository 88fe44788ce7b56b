"""Valid and invalid answers from Hypothesis, split at any byte."""

from __future__ import annotations

import gzip

from hypothesis import given, settings
from hypothesis import strategies as st
from test_framings import FRAMINGS, WRONG, WRONG_IF_STRICT
from wireless import MAX_BODY, answer_to, check_any_bytes, cut

from asyncruns.transport.httptools_connection import BodyTooLarge
from asyncruns.transport.inflate import inflate

bodies = st.binary(max_size=300)
places = st.lists(st.integers(0, 10_000), max_size=12)
names = st.from_regex(r"x-[a-z]{1,8}", fullmatch=True)
values = st.from_regex(r"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
fields = st.lists(st.tuples(names, values), max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bytes, list[tuple[str, str]], bool]:
    """Return an answer, its body, its headers, and whether its connection stays open."""
    body, own, more = draw(bodies), draw(fields), draw(fields)
    kind = draw(st.sampled_from(["length", "chunks", "end"]))
    head = "HTTP/1.1 200 OK\r\n" + "".join(
        f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{value}\r\n" for name, value in own
    )
    before = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * draw(st.integers(0, 2))
    if kind == "length":
        sent = f"content-length: {len(body)}\r\n\r\n".encode() + body
    elif kind == "chunks":
        chunks = [chunk for chunk in cut(body, draw(places)) if chunk]
        extension = draw(st.sampled_from(["", ";a", ";a=b", ';a="b"']))
        sent = b"transfer-encoding: chunked\r\n\r\n"
        sent += b"".join(f"{len(chunk):x}{extension}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
        sent += b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in more).encode() + b"\r\n"
    else:
        sent = b"\r\n" + body
    return (before + head).encode() + sent, body, own, kind != "end"


@given(answers(), places)
@settings(max_examples=100, deadline=None)
def test_an_answer_does_not_depend_on_how_it_is_split(
    answer: tuple[bytes, bytes, list[tuple[str, str]], bool], at: list[int]
) -> None:
    data, body, own, stays_open = answer
    found, is_kept = answer_to(cut(data, at))
    assert isinstance(found, tuple)
    assert (found[0], found[2]) == (200, body)
    assert [(name, value) for name, value in found[1].items() if name.startswith("x-")] == own
    assert is_kept or not stays_open


@given(answers(), st.integers(1, 10_000))
@settings(max_examples=80, deadline=None)
def test_a_truncated_answer_is_an_error(answer: tuple[bytes, bytes, list[tuple[str, str]], bool], missing: int) -> None:
    data, _, _, has_end = answer
    if has_end:
        assert not isinstance(answer_to([data[: -1 - missing % len(data)]])[0], tuple)


@given(answers(), st.binary(min_size=1, max_size=40), places)
@settings(max_examples=80, deadline=None)
def test_bytes_after_an_answer_close_the_connection_and_change_nothing(
    answer: tuple[bytes, bytes, list[tuple[str, str]], bool], more: bytes, at: list[int]
) -> None:
    data, body, _, has_end = answer
    if has_end and more.strip(b"\r\n"):
        found, stays_open = answer_to(cut(data + more, at), ends=False)
        assert isinstance(found, tuple)
        assert found[2] == body
        assert not stays_open


KNOWN = [
    *(answer for answer, _, _, _ in FRAMINGS.values()),
    *WRONG.values(),
    *WRONG_IF_STRICT.values(),
]
pieces = st.one_of(st.sampled_from(KNOWN).map(lambda known: known[:400]), st.binary(max_size=20))


@given(
    st.lists(pieces, max_size=3).map(b"".join),
    st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), max_size=3),
    places,
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_result_in_an_answer_or_an_error(
    data: bytes, changes: list[tuple[int, bytes]], at: list[int]
) -> None:
    for place, new in changes:
        start = place % (len(data) + 1)
        data = data[:start] + new + data[start + len(new) :]
    check_any_bytes(data, at)


@given(st.integers(MAX_BODY - 2, MAX_BODY + 2), places)
@settings(max_examples=50, deadline=None)
def test_a_body_is_accepted_up_to_the_limit(size: int, at: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    found, _ = answer_to(cut(data, at))
    assert isinstance(found, tuple) == (size <= MAX_BODY)
    assert size <= MAX_BODY or found is BodyTooLarge


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(0, 800))
@settings(max_examples=100, deadline=None)
def test_several_gzip_members_are_one_body_up_to_the_limit(members: list[bytes], limit: int) -> None:
    packed = b"".join(map(gzip.compress, members))
    assert inflate("gzip", packed, limit) == b"".join(members)[: limit + 1]
