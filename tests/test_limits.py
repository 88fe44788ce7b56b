"""Requests that are refused before they are sent: the error names the field, the rule and the way around it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from asyncruns import Client, InvalidRequestError
from asyncruns.abc import Transport
from asyncruns.dialects.thread_run import ThreadRunDialect
from asyncruns.http import Request, Response
from asyncruns.limits import Limits
from asyncruns.resources.assistants import Assistants
from asyncruns.resources.base import Server
from asyncruns.resources.threads import Threads
from asyncruns.wire import Thread


class RecordingTransport(Transport):
    """Records the requests, and returns a body that decodes as any type."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, {}, b'{"id": "x_1", "status": "queued", "data": []}')

    async def aclose(self) -> None:
        pass


class Api:
    """The operations of assistants and threads, without a client."""

    def __init__(self, limits: Limits | None) -> None:
        self.transport = RecordingTransport()
        server = Server(self.transport, limits=limits)
        no_client: Any = None
        self.assistants = Assistants(server)
        self.threads = Threads(no_client, server)


Call = Callable[[Api, Any], Awaitable[object]]


def message(metadata: Any) -> dict[str, Any]:
    return {"role": "user", "content": "Hi", "metadata": metadata}


# Every place for metadata, with its name in the error message.
METADATA: Mapping[str, tuple[Call, str]] = {
    "assistants.create": (lambda api, v: api.assistants.create(model="m", metadata=v), "metadata"),
    "assistants.update": (lambda api, v: api.assistants.update("asst_1", metadata=v), "metadata"),
    "threads.create": (lambda api, v: api.threads.create(metadata=v), "metadata"),
    "threads.update": (lambda api, v: api.threads.update("thread_1", metadata=v), "metadata"),
    "threads.create, in a message": (
        lambda api, v: api.threads.create(messages=[Thread(id="any object"), message(v)]),
        "messages[1].metadata",
    ),
    "threads.create, in a generator": (
        lambda api, v: api.threads.create(messages=(message(each) for each in [{}, {}, v])),
        "messages[2].metadata",
    ),
    "create_and_run": (lambda api, v: api.threads.create_and_run(assistant_id="a", metadata=v), "metadata"),
    "create_and_run, of the thread": (
        lambda api, v: api.threads.create_and_run(assistant_id="a", thread={"metadata": v}),
        "thread.metadata",
    ),
    "create_and_run, in a message of the thread": (
        lambda api, v: api.threads.create_and_run(assistant_id="a", thread={"messages": (message(v),)}),
        "thread.messages[0].metadata",
    ),
    "messages.create": (lambda api, v: api.threads.messages.create("t", content="Hi", metadata=v), "metadata"),
    "messages.update": (lambda api, v: api.threads.messages.update("m", thread_id="t", metadata=v), "metadata"),
    "runs.create": (lambda api, v: api.threads.runs.create("t", assistant_id="a", metadata=v), "metadata"),
    "runs.create, in a message": (
        lambda api, v: api.threads.runs.create("t", assistant_id="a", additional_messages=[message(v)]),
        "additional_messages[0].metadata",
    ),
    "runs.update": (lambda api, v: api.threads.runs.update("r", thread_id="t", metadata=v), "metadata"),
}

REFUSED_METADATA: Mapping[str, tuple[Any, str]] = {
    "17 pairs": ({str(number): "" for number in range(17)}, ": at most 16 pairs are allowed; 17 were given"),
    "a long key": ({"k" * 65: ""}, f": a key has at most 64 characters; {'k' * 20!r}... has 65"),
    "a huge key of a number": ({"k" * 10_000: 5}, ": a key has at most 64 characters; 'kkkkkkkkkkkkkkkkkkkk'... has"),
    "a long value": ({"k": "v" * 513}, "['k']: a value has at most 512 characters; this one has 513"),
    "a number": ({"k": 5}, "['k']: values are strings; got int"),
    "null": ({"k": None}, "['k']: values are strings; got NoneType"),
    "true": ({"k": True}, "['k']: values are strings; got bool"),
    "an object": ({"a": "b", "k": {"a": "b"}}, "['k']: values are strings; got dict"),
    "a key that is a number": ({5: "v"}, ": keys are strings; int is the type of one"),
    "a list": ([("k", "v")], ": a mapping of strings to strings is required; got list"),
    "a text": ("hidden", ": a mapping of strings to strings is required; got str"),
}
TAKEN_METADATA: Mapping[str, Any] = {
    "null": None,
    "empty": {},
    "16 pairs": {str(number): "v" for number in range(16)},
    "a key of 64, a value of 512": {"k" * 64: "ü" * 512},
    "empty texts": {"": ""},
    "another mapping": MappingProxyType({"k": "v"}),
}
AROUND: Final = ". Nothing was sent. Client(validate=False) leaves that to the server."


@pytest.mark.parametrize("place", METADATA)
@pytest.mark.parametrize("name", REFUSED_METADATA)
async def test_metadata_that_the_server_would_refuse_is_not_sent(place: str, name: str) -> None:
    api = Api(Limits())
    (call, field), (value, reason) = METADATA[place], REFUSED_METADATA[name]
    with pytest.raises(InvalidRequestError) as caught:
        await call(api, value)
    assert str(caught.value).startswith(f"{field}{reason}")
    assert str(caught.value).endswith(AROUND)
    assert len(str(caught.value)) < 200
    assert api.transport.requests == []
    lenient = Api(None)
    await call(lenient, value)
    assert len(lenient.transport.requests) == 1


@pytest.mark.parametrize("place", METADATA)
@pytest.mark.parametrize("name", TAKEN_METADATA)
async def test_metadata_within_the_limits_is_sent_as_it_is(place: str, name: str) -> None:
    if name == "absent" and METADATA[place][1] != "metadata":
        return  # only a parameter can be UNSET
    strict, lenient = Api(Limits()), Api(None)
    for api in (strict, lenient):
        await METADATA[place][0](api, TAKEN_METADATA[name])
    (sent,), (same,) = strict.transport.requests, lenient.transport.requests
    assert sent.body == same.body


LISTS: Mapping[str, Call] = {
    "assistants": lambda api, v: api.assistants.list(limit=v),
    "threads": lambda api, v: api.threads.list(limit=v),
    "messages": lambda api, v: api.threads.messages.list("t", limit=v),
    "runs": lambda api, v: api.threads.runs.list("t", limit=v),
    "steps": lambda api, v: api.threads.runs.steps.list("r", thread_id="t", limit=v),
}


@pytest.mark.parametrize("name", LISTS)
async def test_a_limit_of_a_list_is_1_to_100(name: str) -> None:
    for limit in (0, -1, 101, 10**30, True, False, 5.0, "5", [5]):
        api = Api(Limits())
        with pytest.raises(InvalidRequestError) as caught:
            await LISTS[name](api, limit)
        assert str(caught.value) == f"limit: 1 to 100 is allowed; got {limit!r}{AROUND}"
        assert api.transport.requests == []
        lenient = Api(None)
        await LISTS[name](lenient, limit)
        assert lenient.transport.requests[0].query
    api = Api(Limits())
    for taken in (None, 1, 100):
        await LISTS[name](api, taken)
    assert [request.query for request in api.transport.requests] == [(), (("limit", "1"),), (("limit", "100"),)]


RUNS: Mapping[str, Callable[..., Awaitable[object]]] = {
    "runs.create": lambda api, **given: api.threads.runs.create("t", assistant_id="a", **given),
    "create_and_run": lambda api, **given: api.threads.create_and_run(assistant_id="a", **given),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("field", ["max_prompt_tokens", "max_completion_tokens"])
async def test_a_token_limit_is_256_or_more(name: str, field: str) -> None:
    for value in (255, 0, -1, True, 256.0, "256"):
        api = Api(Limits())
        with pytest.raises(InvalidRequestError) as caught:
            await RUNS[name](api, **{field: value})
        assert str(caught.value) == f"{field}: 256 or more is allowed; got {value!r}{AROUND}"
        assert api.transport.requests == []
        await RUNS[name](Api(None), **{field: value})
    for taken in (None, UNSET, 256, 10**6):
        await RUNS[name](Api(Limits()), **{field: taken})


TOOL: Final = {"type": "file_search"}
TOOLS: Mapping[str, tuple[Call, int]] = {
    "runs.create": (lambda api, v: api.threads.runs.create("t", assistant_id="a", tools=v), 20),
    "create_and_run": (lambda api, v: api.threads.create_and_run(assistant_id="a", tools=v), 20),
    "assistants.create": (lambda api, v: api.assistants.create(model="m", tools=v), 128),
    "assistants.update": (lambda api, v: api.assistants.update("asst_1", tools=v), 128),
}


@pytest.mark.parametrize("name", TOOLS)
async def test_a_run_has_at_most_20_tools_and_an_assistant_128(name: str) -> None:
    call, most = TOOLS[name]
    for tools in ([TOOL] * (most + 1), (TOOL for _ in range(most + 1))):
        api = Api(Limits())
        with pytest.raises(InvalidRequestError) as caught:
            await call(api, tools)
        assert str(caught.value) == f"tools: at most {most} are allowed; {most + 1} were given{AROUND}"
        assert api.transport.requests == []
    await call(Api(None), [TOOL] * (most + 1))
    for taken in (None, UNSET, [], [TOOL] * most, (TOOL for _ in range(most))):
        await call(Api(Limits()), taken)


IDS: Mapping[str, tuple[Call, str]] = {
    "a thread": (lambda api, v: api.threads.retrieve(v), "thread_id"),
    "a message": (lambda api, v: api.threads.messages.delete(v, thread_id="t"), "message_id"),
    "a run": (lambda api, v: api.threads.runs.cancel(v, thread_id="t"), "run_id"),
    "a step": (lambda api, v: api.threads.runs.steps.retrieve(v, thread_id="t", run_id="r"), "step_id"),
    "an assistant": (lambda api, v: api.assistants.update(v), "assistant_id"),
    "the assistant of a run": (lambda api, v: api.threads.runs.create("t", assistant_id=v), "assistant_id"),
    "the assistant of both": (lambda api, v: api.threads.create_and_run(assistant_id=v), "assistant_id"),
}


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("limits", [Limits(), None], ids=["checked", "unchecked"])
async def test_an_empty_id_is_refused_even_without_the_checks(name: str, limits: Limits | None) -> None:
    call, field = IDS[name]
    for value in ("", " ", None, 5):
        api = Api(limits)
        with pytest.raises(InvalidRequestError, match=f"{field} must be a non-empty string"):
            await call(api, value)
        assert api.transport.requests == []


async def test_the_limits_are_those_of_the_dialect_unless_the_client_does_not_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ThreadRunDialect, "limits", Limits(page=5, metadata_pairs=1))
    transport = RecordingTransport()
    for client in (Client("http://127.0.0.1:9/v1"), Client("http://127.0.0.1:9/v1", validate=True)):
        with pytest.raises(InvalidRequestError, match="1 to 5 is allowed"):
            await client.threads.list(limit=6)
        with pytest.raises(InvalidRequestError, match="at most 1 pairs"):
            await client.assistants.create(model="m", metadata={"a": "b", "c": "d"})
    lenient = Client("http://127.0.0.1:9/v1", validate=False)
    monkeypatch.setattr(lenient.transport, "send", transport.send)
    await lenient.threads.list(limit=600)
    await lenient.threads.runs.create("t", assistant_id="a", metadata={"n": 5}, tools=[TOOL] * 500)  # type: ignore[dict-item]
    assert [request.query for request in transport.requests] == [(("limit", "600"),), ()]


# Any metadata: the rule decides, and decides alike in every place.

TEXTS = st.one_of(st.text(max_size=3), st.integers(62, 66).map("k".__mul__), st.integers(510, 514).map("v".__mul__))
VALUES = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.lists(TEXTS, max_size=1))
ANY_METADATA = st.one_of(
    st.dictionaries(TEXTS, TEXTS, max_size=3),
    st.dictionaries(st.one_of(TEXTS, st.integers()), VALUES, max_size=3),
    st.integers(0, 20).map(lambda size: {str(number): "v" for number in range(size)}),
)


def is_allowed(metadata: Mapping[Any, Any]) -> bool:
    return len(metadata) <= 16 and all(
        isinstance(key, str) and len(key) <= 64 and isinstance(text, str) and len(text) <= 512
        for key, text in metadata.items()
    )


def refusal(fields: Mapping[str, Any]) -> str:
    """Return the message with which fields are refused, or ""."""
    try:
        Limits().check(fields)
    except InvalidRequestError as error:
        return str(error)
    return ""


@settings(deadline=None)  # a busy machine must not fail the test
@given(ANY_METADATA)
def test_the_rule_applies_to_any_metadata_in_any_place(metadata: dict[Any, Any]) -> None:
    places: dict[str, dict[str, Any]] = {
        "metadata": {"metadata": metadata},
        "thread.metadata": {"thread": {"metadata": metadata}},
        "messages[1].metadata": {"messages": [{"metadata": None}, {"metadata": metadata}]},
        "thread.messages[0].metadata": {"thread": {"messages": [{"metadata": metadata}]}},
        "additional_messages[0].metadata": {"additional_messages": [{"metadata": metadata}]},
    }
    for field, fields in places.items():
        reason = refusal(fields)
        assert (reason == "") is is_allowed(metadata)
        assert not reason or (reason.startswith(field) and reason.endswith(AROUND))


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.one_of(st.integers(-5, 300), st.booleans(), st.floats(), st.text(max_size=2)))
def test_the_rule_applies_to_any_number(value: object) -> None:
    for field, allowed in (("limit", range(1, 101)), ("max_prompt_tokens", range(256, 10**6))):
        reason = refusal({field: value})
        assert (reason == "") is (type(value) is int and value in allowed)
        assert not reason or reason.startswith(f"{field}: ")
