"""The requests that our methods build equal the recorded ones: method, path, query and JSON body."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pytest
from described import Operation, asked_for, keyword_of, method_of, operations
from recordings import Exchange, exchanges

from asyncruns import Client, InvalidRequestError
from asyncruns.abc import Transport
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.limits import Limits
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import Server
from asyncruns.resources.threads import Threads

PREFIX: Final = "/v1"  # of the base URL
# Recorded fields that are passed in `extra_body`: `stream`, since `with_raw_response` refuses streams, and the files of
# v1, for which there is no parameter.
THROUGH_EXTRA_BODY: Final = {"stream": 33, "file_ids": 9}
WITHOUT_BODY: Final = frozenset({"cancelRun"})


class Recorder(Transport):
    """Records the requests that are sent."""

    def __init__(self) -> None:
        self.sent: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.sent.append(request)
        return Response(200, {}, b"{}")

    async def aclose(self) -> None:
        pass


class Resources:
    """The resources of a client, over a recorder."""

    def __init__(self, *, limits: Limits | None) -> None:
        self.recorder = Recorder()
        server = Server(self.recorder, limits=limits)
        self.assistants = Assistants(server)
        self.threads = Threads(Client("http://127.0.0.1" + PREFIX), server)


@dataclass(frozen=True, kw_only=True)
class Call:
    """A recorded request, as a call of one of our methods."""

    operation: Operation
    exchange: Exchange
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return str(self.exchange)

    @property
    def refused_field(self) -> str:
        """The field that breaks a documented rule, as our error names it, or ""."""
        metadata = self.arguments.get("metadata") or {}
        if any(not isinstance(value, str) for value in metadata.values()):
            return "metadata['modified']"
        return "max_completion_tokens" if self.arguments.get("max_completion_tokens", 256) < 256 else ""


def calls() -> Iterator[Call]:
    """Yield the recorded requests of these operations, except those whose body was not recorded."""
    for exchange in exchanges():
        asked = asked_for(exchange.method, exchange.path.removeprefix(PREFIX))
        if asked is None:
            continue
        operation, ids = asked
        if operation.method != "POST" or operation.name in WITHOUT_BODY or exchange.request_body is not None:
            query = {keyword_of(name): query_value(name, value) for name, value in exchange.query.items()}
            fields = with_extras(operation, exchange.request_body or {})
            yield Call(operation=operation, exchange=exchange, arguments={**ids, **query, **fields})


def query_value(name: str, text: str) -> object:
    """Return the argument that becomes this text in a query."""
    if name.endswith("[]"):
        return [text]
    return int(text) if name == "limit" else text


def with_extras(operation: Operation, body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields as keywords; fields without a keyword go into `extra_body`."""
    known = operation.keywords - {"stream"}
    found = {name: value for name, value in body.items() if name in known}
    extra = {name: value for name, value in body.items() if name not in known}
    return {**found, "extra_body": extra} if extra else found


CALLS: Final = tuple(calls())
AGAINST_A_RULE: Final = [each for each in CALLS if each.refused_field]


async def sent_by(call: Call, limits: Limits | None) -> Request:
    resources = Resources(limits=limits)
    await method_of(resources, call.operation, is_raw=True)(**call.arguments)
    (request,) = resources.recorder.sent
    return request


def check(request: Request, exchange: Exchange) -> None:
    assert request.method == exchange.method
    assert PREFIX + unquote(request.path) == exchange.path
    assert request.query == tuple(exchange.query.items())
    assert (None if request.body is None else json.loads(request.body)) == exchange.request_body
    assert (request.headers, request.timeout) == ((), None)


def test_all_requests_of_these_operations_are_here() -> None:
    asked = [asked_for(each.method, each.path.removeprefix(PREFIX)) for each in exchanges()]
    assert sum(each is not None for each in asked) == 906
    assert len(CALLS) == 864  # for the others, no body was recorded
    assert sum(each.exchange.request_body is not None for each in CALLS) == 458
    assert sum(bool(each.exchange.query) for each in CALLS) == 41
    assert {each.operation for each in CALLS} == set(operations())


def test_what_has_no_parameter_is_known_by_name() -> None:
    extras = Counter(name for each in CALLS for name in each.arguments.get("extra_body", {}))
    assert extras == THROUGH_EXTRA_BODY


def test_what_is_against_a_rule_was_accepted_half_of_the_time() -> None:
    # The minimum of 256 tokens is newer than the recordings: no request with fewer was refused for that.
    assert Counter(each.refused_field for each in AGAINST_A_RULE) == {
        "metadata['modified']": 21,
        "max_completion_tokens": 32,
    }
    assert Counter(each.refused_field for each in AGAINST_A_RULE if each.exchange.status == 200) == {
        "metadata['modified']": 10,
        "max_completion_tokens": 15,
    }


async def test_a_request_is_as_it_was_recorded() -> None:
    keeping = [each for each in CALLS if not each.refused_field]
    assert len(keeping) == len(CALLS) - 53
    for call in keeping:
        check(await sent_by(call, ThreadRunDialect.limits), call.exchange)


@pytest.mark.parametrize("call", AGAINST_A_RULE, ids=str)
async def test_what_is_against_a_rule_is_refused_by_its_name(call: Call) -> None:
    resources = Resources(limits=ThreadRunDialect.limits)
    with pytest.raises(InvalidRequestError, match=f"^{re.escape(call.refused_field)}: "):
        await method_of(resources, call.operation)(**call.arguments)
    assert resources.recorder.sent == []


@pytest.mark.parametrize("call", AGAINST_A_RULE, ids=str)
async def test_what_is_against_a_rule_is_sent_as_recorded_where_nothing_is_checked(call: Call) -> None:
    check(await sent_by(call, None), call.exchange)
