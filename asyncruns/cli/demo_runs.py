"""The content of the demo's runs: assistants, tools, questions, and the scenario of each run in the emulator.

Everything is derived from a run's number, so that every demo is the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from asyncruns.lifecycle import EndKind
from asyncruns.testing.emulator import FunctionCall, RunRequest, Scenario, default_scenario
from asyncruns.tools import Toolset

NUMBER_KEY: Final = "asyncruns_demo"
"""The key of a run's number in its metadata."""

_CITIES: Final = ("Paris", "Oslo", "Lima", "Cairo", "Kyoto", "Perth", "Quito", "Riga")
_CYCLE: Final = 36  # number of runs after which the ends repeat
_EXPECTED: Final = {
    "completed": EndKind.COMPLETED,
    "failed": EndKind.FAILED,
    "incomplete": EndKind.INCOMPLETE,
    "never": EndKind.EXPIRED,
}
_FAULTS: Final = (
    ("rate_limit_exceeded", "Rate limit reached. Please try again later."),
    ("server_error", "Sorry, something went wrong."),
)
_TOOL_S: Final = (0.3, 1.2)
_LENGTH_S: Final = (1.5, 6.0)  # of a run, without its tools
_QUEUED_SHARE: Final = 0.3
_LIFETIME_S: Final = 7.5  # of a run that never ends


@dataclass(frozen=True, kw_only=True)
class Role:
    """One of the demo's assistants, with its tools."""

    name: str
    instructions: str
    question: str
    tools: tuple[str, ...]


ROLES: Final = (
    Role(
        name="weather",
        instructions="Look the weather up with get_weather, once for each city. Answer in one short sentence.",
        question="How is the weather in {} and {}?",
        tools=("get_weather",),
    ),
    Role(
        name="units",
        instructions="Convert temperatures with to_fahrenheit. Answer in one short sentence.",
        question="What are 21 and -4 degrees Celsius in Fahrenheit, for a traveller from {} to {}?",
        tools=("to_fahrenheit",),
    ),
    Role(
        name="travel",
        instructions="Look the weather up with get_weather, convert with to_fahrenheit. Answer in one short sentence.",
        question="How warm is it in {} and in {}, in Fahrenheit?",
        tools=("get_weather", "to_fahrenheit"),
    ),
)


def role_of(number: int) -> Role:
    """Return the assistant of a run."""
    return ROLES[number % len(ROLES)]


def question_of(number: int) -> str:
    """Return the question of the user in a run."""
    return role_of(number).question.format(*_chance(number).sample(_CITIES, 2))


def toolset() -> Toolset:
    """Make the tools: one that waits, as if for a service, and one that computes."""
    return Toolset((get_weather, to_fahrenheit))


async def get_weather(city: str) -> str:
    """Return today's weather in a city."""
    chance = _chance(city)
    celsius = chance.randint(-5, 35)
    await anyio.sleep(chance.uniform(*_TOOL_S))
    return f"{celsius} C in {city}"


def to_fahrenheit(celsius: float) -> str:
    """Convert degrees Celsius to Fahrenheit."""
    return f"{celsius:g} C is {celsius * 1.8 + 32:g} F"


def scenario_of(number: int) -> Scenario:
    """Return the scenario of a run in the emulator: most complete, some end in other ways."""
    chance = _chance(number)
    end = _end_of(number)
    tools = role_of(number).tools
    rounds = () if end == "never" else tuple(_round(chance, tools) for _ in range(chance.choice((0, 1, 1, 1, 2, 2))))
    code, message = _FAULTS[number % len(_FAULTS)]
    leg = chance.uniform(*_LENGTH_S) / (len(rounds) + 1)
    return Scenario(
        queued=leg * _QUEUED_SHARE,
        working=leg * (1 - _QUEUED_SHARE),
        rounds=rounds,
        end=end,
        answer=None if rounds else "Nothing to look up: pack for rain.",
        error_code=code,
        error_message=message,
        lifetime=_LIFETIME_S if end == "never" else 600.0,
    )


def expected_of(number: int) -> tuple[EndKind, int]:
    """Return how a run ends in the emulator, and the number of its tool calls."""
    scenario = scenario_of(number)
    return _EXPECTED[scenario.end], sum(map(len, scenario.rounds))


def demo_scenario(request: RunRequest) -> Scenario:
    """Return the scenario of a requested run: the demo's if it has a number in its metadata, else the default."""
    number = request.metadata.get(NUMBER_KEY, "")
    return scenario_of(int(number)) if number.isdecimal() else default_scenario(request)


def _end_of(number: int) -> str:
    match number % _CYCLE:
        case 4 | 15 | 30:
            return "failed"
        case 11:
            return "incomplete"
        case 7:
            return "never"
        case _:
            return "completed"


def _round(chance: random.Random, tools: Sequence[str]) -> tuple[FunctionCall, ...]:
    """Make one round of one to three calls at once."""
    return tuple(
        FunctionCall(name, {"city": city} if name == "get_weather" else {"celsius": chance.randint(-10, 40)})
        for city in chance.sample(_CITIES, chance.randint(1, 3))
        for name in (chance.choice(tools),)
    )


def _chance(seed: object) -> random.Random:
    return random.Random(f"asyncruns {seed}")  # noqa: S311 - for variety, not for secrets
