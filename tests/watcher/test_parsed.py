"""The text of a run as a value: the schema that is sent, and what `parsed()` returns and raises, on each wire."""

from __future__ import annotations

import dataclasses
import json
import pickle
import sys
from typing import Any, TypedDict, assert_type

import msgspec
import pydantic
import pytest
from wires import ASSISTANT, MODEL, TWO_ROUNDS, Tools, Wire

from asyncruns import (
    Client,
    Completed,
    Fleet,
    Incomplete,
    InvalidOutputError,
    InvalidRequestError,
    RefusalError,
    RunFailedError,
    RunIncompleteError,
)
from asyncruns.resources.response_parameters import ResponseParameters
from asyncruns.testing import Emulator, InMemoryTransport, Scenario
from asyncruns.wire import ModelResponse, decode

OSLO: dict[str, Any] = {"name": "Oslo", "population": 700_000}


class City(msgspec.Struct):
    name: str
    population: int


class Town(pydantic.BaseModel):
    name: str
    population: int


@dataclasses.dataclass
class Village:
    name: str
    population: int


class Hamlet(TypedDict):
    name: str
    population: int


VALUES = [City(**OSLO), Town(**OSLO), Village(**OSLO), Hamlet(name="Oslo", population=700_000)]


def sent(emulator: Emulator) -> list[tuple[str, Any]]:
    """Return the paths and the bodies of the requests that had one."""
    return [(seen.path, msgspec.json.decode(seen.body)) for seen in emulator.requests if seen.body]


def formats_sent(wire: Wire) -> list[Any]:
    """Return the format of each create of a run or a response, in the form of its wire."""
    found = sent(wire.emulator)
    if wire.name == "threads":
        return [body.get("response_format") for path, body in found if path.endswith("/runs")]
    return [body.get("text", {}).get("format") for path, body in found if path.endswith("/responses")]


def expected_format(wire: Wire) -> Any:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "population": {"type": "integer"}},
        "required": ["name", "population"],
        "additionalProperties": False,
    }
    sent = {"name": "City", "schema": schema, "strict": True}
    if wire.name == "threads":
        return {"type": "json_schema", "json_schema": sent}
    return {"type": "json_schema", **sent}


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
async def test_a_run_is_created_with_the_schema_and_parsed(wire: Wire, value: Any) -> None:
    type_ = Hamlet if isinstance(value, dict) else type(value)
    outcome = await wire.run(Scenario(answer=OSLO), output_type=type_)
    assert await outcome.parsed() == value
    assert json.loads(await outcome.text()) == OSLO


async def test_the_schema_has_the_form_of_the_wire_and_goes_with_each_follow_up(wire: Wire, tools: Tools) -> None:
    outcome = await wire.run(Scenario(rounds=TWO_ROUNDS, answer=OSLO), tools=tools, output_type=City)
    assert await outcome.parsed() == City(**OSLO)
    assert formats_sent(wire) == [expected_format(wire)] * (3 if wire.has_new_run_each_round else 1)


async def test_a_watch_reads_the_text_as_its_output_type_and_sends_nothing(wire: Wire, tools: Tools) -> None:
    run = await wire.start(rounds=TWO_ROUNDS, answer=OSLO)
    outcome = await wire.watch(run, tools=tools, output_type=City)
    assert await outcome.parsed() == City(**OSLO)
    assert "json_schema" not in str(formats_sent(wire))


async def test_the_type_may_be_given_to_parsed_instead(wire: Wire) -> None:
    run = await wire.start(answer=OSLO)
    outcome = await wire.watch(run, output_type=Town)
    town = await outcome.parsed(Town)
    assert_type(town, Town)
    assert_type(await outcome.parsed(Hamlet), Hamlet)
    assert_type(await outcome.parsed(dict[str, Any]), dict[str, Any])
    assert town.population == 700_000
    assert await outcome.parsed(City) == City(**OSLO)
    assert await outcome.parsed(dict) == OSLO


async def test_without_a_type_parsed_says_what_to_pass(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(answer=OSLO))
    with pytest.raises(InvalidRequestError, match=r"output_type=City, or here: await outcome\.parsed\(City\)"):
        await outcome.parsed()


async def test_a_text_that_does_not_fit_is_in_the_error(wire: Wire) -> None:
    answer = json.dumps({"name": "O" * 1000, "population": "many"})
    outcome = await wire.watch(await wire.start(answer=answer), output_type=City)
    with pytest.raises(
        InvalidOutputError, match=r"wrote no City: Expected `int`, got `str` - at `\$\.population`"
    ) as raised:
        await outcome.parsed()
    error = raised.value
    assert (error.text, error.ref) == (await outcome.text(), outcome.ref)
    assert isinstance(error.__cause__, msgspec.ValidationError)
    assert answer[:300] in str(error)
    assert answer[:301] not in str(error)
    with pytest.raises(InvalidOutputError, match=r"Town: .* - at `\$\.population`"):
        await outcome.parsed(Town)


async def test_what_a_model_wrote_does_not_control_a_terminal(wire: Wire) -> None:
    for scenario in (Scenario(answer="\x1b[2J"), Scenario(refusal="\x1b[2J")):
        outcome = await wire.run(scenario, output_type=City)
        with pytest.raises((InvalidOutputError, RefusalError), match=r"\\x1b\[2J$"):
            await outcome.parsed()


async def test_a_run_without_a_text_has_no_value(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(answer=""), output_type=City)
    with pytest.raises(InvalidOutputError, match="wrote no City: it wrote no text") as raised:
        await outcome.parsed()
    assert raised.value.text == ""


async def test_a_refusal_is_told_apart(wire: Wire) -> None:
    outcome = await wire.run(Scenario(refusal="I can't help with that."), output_type=City)
    assert isinstance(outcome, Completed)
    assert await outcome.text() == ""
    assert [message.refusal for message in await outcome.messages()] == ["I can't help with that."]
    with pytest.raises(RefusalError, match=r"wrote no City: the model refused: I can't help") as raised:
        await outcome.parsed()
    assert (raised.value.refusal, raised.value.ref) == ("I can't help with that.", outcome.ref)


async def test_a_run_that_was_cut_off_is_incomplete_and_not_a_wrong_text(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(end="incomplete", answer='{"name": "Os'), output_type=City)
    assert isinstance(outcome, Incomplete)
    with pytest.raises(RunIncompleteError, match=r"is incomplete.*max_(completion|output)_tokens"):
        await outcome.parsed()


async def test_a_run_that_failed_raises_as_unwrap_does(wire: Wire) -> None:
    outcome = await wire.watch(await wire.start(end="failed"))
    with pytest.raises(RunFailedError):
        await outcome.parsed(City)


@pytest.mark.parametrize(
    ("type_", "why"),
    [(list[City], "wrap it in a class"), (dict[str, int], "cannot be sent"), ("City", "must be a type")],
)
async def test_what_cannot_be_sent_is_refused_before_anything_is(wire: Wire, type_: Any, why: str) -> None:
    with pytest.raises(InvalidRequestError, match=why):
        await wire.run(Scenario(), output_type=type_)
    assert wire.emulator.requests == []


async def test_a_format_beside_the_type_is_refused_before_anything_is_sent(wire: Wire) -> None:
    given: Any = {"response_format": {"type": "json_object"}}
    if wire.name == "responses":
        given = {"text": {"format": {"type": "json_object"}}}
    for parameters, why in (
        (given, "output_type is sent as the .*: leave out"),
        ({"output_type": City}, "not in the parameters"),
    ):
        with pytest.raises(InvalidRequestError, match=why):
            await wire.run(Scenario(), output_type=City, parameters=parameters)
    assert wire.emulator.requests == []


async def test_the_creating_methods_take_the_type_too(wire: Wire) -> None:
    wire.emulator.script(Scenario(answer=OSLO), **wire._creator())
    if wire.name == "threads":
        thread = await wire.client.threads.create()
        run: Any = await wire.client.threads.runs.create(thread.id, assistant_id=ASSISTANT, output_type=City)
        second = await wire.client.threads.create_and_run(assistant_id=ASSISTANT, output_type=City)
        assert second.response_format == run.response_format
    else:
        run = await wire.client.responses.create(model=MODEL, input="?", background=True, output_type=City)
    assert {str(found) for found in formats_sent(wire)} == {str(expected_format(wire))}
    assert await (await wire.watch(run, output_type=City)).parsed() == City(**OSLO)


# Responses


async def test_other_settings_of_the_text_are_kept() -> None:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        await client.run(model=MODEL, message="?", output_type=City, parameters={"text": {"verbosity": "low"}})
        ((_, body),) = sent(emulator)
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["name"] == "City"


async def test_follow_ups_repeat_the_format_that_the_server_echoes_or_that_the_caller_gives(tools: Tools) -> None:
    async with Emulator() as emulator, Client(emulator.base_url) as client:
        emulator.script(Scenario(rounds=TWO_ROUNDS, answer=OSLO), model=MODEL)
        given: ResponseParameters = {"model": MODEL, "output_type": City}
        for parameters in (None, given):
            response = await client.responses.create(model=MODEL, input="?", background=True, output_type=City)
            outcome = await client.responses.watch(
                response,
                continue_with=parameters,
                tools=tools,
                output_type=City,
            )
            assert await outcome.parsed() == City(**OSLO)
        names = [body["text"]["format"]["name"] for _, body in sent(emulator)]
    assert names == ["City"] * 6


async def test_the_last_of_several_messages_is_read() -> None:
    def message(text: str) -> dict[str, Any]:
        return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}

    outcome = await said([message("Let me see."), message(json.dumps(OSLO)), message("")])
    assert await outcome.parsed(City) == City(**OSLO)


async def said(output: list[dict[str, Any]]) -> Any:
    body = {"id": "resp_1", "object": "response", "status": "completed", "output": output}
    response = decode(msgspec.json.encode(body), ModelResponse)
    return await Client(transport=InMemoryTransport()).watch(response)


# Fleets


async def test_each_watch_of_a_fleet_may_have_its_own_type() -> None:
    transport = InMemoryTransport(scenario=Scenario(answer=OSLO))
    client = Client(transport=transport)
    assistant = await client.assistants.create(model=MODEL)
    runs = [await client.threads.create_and_run(assistant_id=assistant.id) for _ in range(3)]
    async with Fleet(client, output_type=City) as fleet:
        watches = [fleet.watch(runs[0]), fleet.watch(runs[1], output_type=Town), fleet.watch(runs[2], output_type=None)]
        assert [type(await (await watch).parsed()) for watch in watches[:2]] == [City, Town]
        with pytest.raises(InvalidRequestError, match="No output type"):
            await (await watches[2]).parsed()
        with pytest.raises(InvalidRequestError, match="output_type must be a type"):
            fleet.watch(runs[0], output_type="City")  # type: ignore[call-overload]


# Copies and JSON


@pytest.fixture
async def outcome() -> Any:
    client = Client(transport=InMemoryTransport(scenario=Scenario(answer=OSLO)))
    return await client.run(model=MODEL, message="?", output_type=City)


async def test_an_outcome_is_pickled_with_the_name_of_its_type(outcome: Any) -> None:
    assert await pickle.loads(pickle.dumps(outcome)).parsed() == City(**OSLO)


async def test_a_type_that_has_no_name_is_left_out_of_a_pickle() -> None:
    class Local(msgspec.Struct):
        name: str

    client = Client(transport=InMemoryTransport(scenario=Scenario(answer=OSLO)))
    found = pickle.loads(pickle.dumps(await client.run(model=MODEL, message="?", output_type=Local)))
    with pytest.raises(InvalidRequestError, match="No output type"):
        await found.parsed()
    assert await found.parsed(Local) == Local("Oslo")


async def test_where_the_class_is_missing_the_outcome_can_still_be_unpickled(
    outcome: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(outcome)
    monkeypatch.delattr(sys.modules[__name__], "City")
    found = pickle.loads(data)
    assert json.loads(await found.text()) == OSLO
    with pytest.raises(InvalidRequestError, match="No output type"):
        await found.parsed()


async def test_the_json_of_an_outcome_has_no_type(outcome: Any) -> None:
    assert not any("type" in name for name in outcome.to_dict())


@pytest.mark.parametrize("way", ["watcher"])
async def test_a_body_of_the_caller_that_would_replace_the_schema_is_refused(wire: Wire) -> None:
    begin: dict[str, Any] = {"assistant_id": ASSISTANT} if wire.name == "threads" else {"model": MODEL}
    extra = {"response_format": "auto"} if wire.name == "threads" else {"text": {"verbosity": "low"}}
    with pytest.raises(InvalidRequestError, match="in extra_body would replace"):
        await wire.client.run(message="Hi", output_type=City, parameters={"extra_body": extra}, **begin)
    assert wire.emulator.requests == []


async def test_a_text_that_is_no_dict_is_refused_with_words() -> None:
    async with Client(transport=InMemoryTransport()) as client:
        with pytest.raises(InvalidRequestError, match="text must be a dict"):
            await client.run(model=MODEL, message="Hi", output_type=City, parameters={"text": "plain"})  # type: ignore[call-overload]
