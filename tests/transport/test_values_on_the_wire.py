"""Values as programs have them: a value that stands for a text is sent as that text everywhere."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Final

import pytest
from recording_server import RecordingServer
from yarl import URL

from asyncruns import ApiKeyAuth, BearerAuth, Client, InvalidRequestError, RunRef
from asyncruns.http import query_of
from asyncruns.transport.auth import PortkeyAuth


class Order(str, enum.Enum):  # noqa: UP042 - as most programs write it
    DESC = "desc"


class NewOrder(enum.StrEnum):
    DESC = "desc"


class PlainOrder(enum.Enum):
    DESC = "desc"


class Size(enum.IntEnum):
    SMALL = 5


class Nested(enum.Enum):
    INNER = PlainOrder.DESC


UUID: Final = uuid.UUID("12345678-1234-5678-1234-567812345678")
AT: Final = datetime.datetime(2026, 11, 29, 4, 30, tzinfo=datetime.UTC)

TEXTS: Final[list[tuple[Any, str]]] = [
    (Order.DESC, "desc"),
    (NewOrder.DESC, "desc"),
    (PlainOrder.DESC, "desc"),
    (Nested.INNER, "desc"),
    (Size.SMALL, "5"),
    (UUID, str(UUID)),
    (AT.date(), "2026-11-29"),
    (AT, "2026-11-29T04:30:00+00:00"),
    (Decimal("0.70"), "0.70"),
    (Decimal("1E+2"), "100"),
    (PurePosixPath("a/b"), "a/b"),
]
IDS: Final = [str(text) + " of " + type(value).__name__ for value, text in TEXTS]


@pytest.fixture
async def server() -> AsyncIterator[RecordingServer]:
    async with RecordingServer() as server:
        yield server


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=IDS)
async def test_a_value_in_a_query_is_sent_as_its_text(server: RecordingServer, value: Any, text: str) -> None:
    async with Client(server.base_url, default_query={"all": value}) as client:
        await client.threads.retrieve("thread_1", extra_query={"one": value, "many": [value, None], "of": {value}})
    query = dict(URL(server.seen[0].target).query)
    assert query == {"all": text, "one": text, "many[]": text, "of[]": text}


async def test_a_parameter_of_a_list_may_be_a_member_of_an_enum(server: RecordingServer) -> None:
    async with Client(server.base_url) as client:
        await client.threads.messages.list("thread_1", order=Order.DESC, limit=Size.SMALL)  # type: ignore[arg-type]
    assert dict(URL(server.seen[0].target).query) == {"order": "desc", "limit": "5"}


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=IDS)
async def test_a_value_in_a_header_is_sent_as_its_text(server: RecordingServer, value: Any, text: str) -> None:
    async with Client(server.base_url, default_headers={"x-all": value}, organization=value) as client:
        await client.threads.retrieve("thread_1", extra_headers={"x-one": value})
    (seen,) = server.seen
    assert [seen.header(name) for name in ("x-all", "OpenAI-Organization", "x-one")] == [text] * 3


async def test_a_header_that_is_a_number_is_still_refused(server: RecordingServer) -> None:
    async with Client(server.base_url) as client:
        with pytest.raises(InvalidRequestError, match="must be a string, not a int"):
            await client.threads.retrieve("thread_1", extra_headers={"x-one": 5})  # type: ignore[dict-item]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=IDS)
async def test_an_id_is_sent_as_its_text(server: RecordingServer, value: Any, text: str) -> None:
    async with Client(server.base_url) as client:
        await client.threads.runs.cancel(value, thread_id=value)
    quoted = text.replace("/", "%2F").replace(":", "%3A").replace("+", "%2B")
    assert server.targets == [f"/v1/threads/{quoted}/runs/{quoted}/cancel"]


def test_a_ref_of_enum_members_holds_their_values() -> None:
    client = Client("http://127.0.0.1:9/v1")
    ref = client.dialect.identify(None, {"thread_id": Order.DESC, "run_id": UUID})  # type: ignore[dict-item]
    assert ref == RunRef("thread.run", ("desc", str(UUID)))
    assert [type(each) for each in ref.ids] == [str, str]
    named = client.responses.alone.dialect.identify(RunRef("response", (PlainOrder.DESC,)), {})  # type: ignore[arg-type]
    assert named.ids == ("desc",)


@pytest.mark.parametrize("value", [5, None, "", b"x", ["a"]], ids=repr)
async def test_a_value_that_is_not_an_id_is_refused(value: Any) -> None:
    async with Client("http://127.0.0.1:9/v1") as client:
        with pytest.raises(InvalidRequestError, match="must be a non-empty string"):
            await client.threads.retrieve(value)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (Order.DESC, "desc"),
        (PlainOrder.DESC, "desc"),
        (Size.SMALL, 5),
        (UUID, str(UUID)),
        (AT.date(), "2026-11-29"),
        (AT, "2026-11-29T04:30:00Z"),
        (Decimal("0.7"), 0.7),
        (PurePosixPath("a/b"), "a/b"),
        ({UUID: [Decimal(1)]}, {str(UUID): [1]}),
    ],
    ids=repr,
)
async def test_a_value_in_a_body_is_sent_as_json(server: RecordingServer, value: Any, sent: Any) -> None:
    async with Client(server.base_url) as client:
        await client.threads.create(extra_body={"x": value})
        await client.responses.create(model="m", input="?", extra_body={"x": [value]})
    assert json.loads(server.seen[0].body)["x"] == sent
    assert json.loads(server.seen[1].body)["x"] == [sent]


async def test_a_temperature_may_be_a_decimal(server: RecordingServer) -> None:
    async with Client(server.base_url) as client:
        await client.threads.runs.create("t", assistant_id="a", temperature=Decimal("0.2"))  # type: ignore[call-overload]
    assert json.loads(server.seen[0].body)["temperature"] == 0.2


class Key(str, enum.Enum):  # noqa: UP042
    MINE = "sk-of-an-enum-1234"


@pytest.mark.parametrize(
    ("auth", "header", "sent"),
    [
        (BearerAuth(Key.MINE), "Authorization", "Bearer sk-of-an-enum-1234"),
        (ApiKeyAuth(Key.MINE), "api-key", "sk-of-an-enum-1234"),
        (PortkeyAuth(Key.MINE, provider="p"), "x-portkey-api-key", "sk-of-an-enum-1234"),
    ],
    ids=["bearer", "key", "portkey"],
)
async def test_a_key_may_be_a_member_of_an_enum(server: RecordingServer, auth: Any, header: str, sent: str) -> None:
    async with Client(server.base_url, auth=auth) as client:
        await client.threads.retrieve("thread_1")
    assert server.seen[0].header(header) == sent
    assert auth.secrets() == ("sk-of-an-enum-1234",)


async def test_a_base_url_may_be_an_object_of_a_url_library(server: RecordingServer) -> None:
    async with Client(URL(server.base_url)) as client:  # type: ignore[arg-type]
        await client.threads.retrieve("thread_1")
    assert client.base_url == server.base_url


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        (None, ()),
        ([None], ()),
        (True, (("x", "true"),)),
        ([False, 1], (("x[]", "false"), ("x[]", "1"))),
        ((item for item in "ab"), (("x[]", "a"), ("x[]", "b"))),
        ({Order.DESC: 1}.keys(), (("x[]", "desc"),)),
        ({"a": {PlainOrder.DESC: Decimal("0.5")}, "b": [None, True]}, (("x[a][desc]", "0.5"), ("x[b][]", "true"))),
        (b"ab", (("x", "ab"),)),
        (0.5, (("x", "0.5"),)),
    ],
    ids=["None", "None in a list", "a boolean", "a list", "a generator", "keys", "a mapping", "bytes", "a float"],
)
def test_a_value_in_a_query_makes_pairs(value: Any, pairs: tuple[tuple[str, str], ...]) -> None:
    assert query_of([("x", value)]) == pairs
