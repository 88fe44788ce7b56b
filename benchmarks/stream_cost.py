"""CPU time of one streamed `thread.message.delta`, typed: asyncruns compared with aiohttp + split + msgspec and openai.

    python benchmarks/stream_cost.py

Each client runs in a process of its own, against a bare server in another; the clients take turns, and the figure is
the median of the repetitions. CPU time is the user and system time of the client's process, without its start and
warm-up. In one measurement the server writes as fast as it can; in the other it pauses for a millisecond after each
event, so that the client wakes for each. asyncruns also accumulates the message. Writes `results/stream_cost.json` and
`results/stream_cost.png` beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from bars import plot_bars

HERE = Path(__file__).parent
CLIENTS = ("asyncruns", "plain", "openai")
PACES = {"as fast as it goes": (5000, 0.0), "one each millisecond": (1000, 1.0)}
STREAMS = {"asyncruns": (6, 2), "plain": (6, 2), "openai": (2, 2)}
REPETITIONS = 5
TIMEOUT_S = 30.0
KEY = "sk-0123456789abcdef0123456789abcdef"

Stream = Callable[[], Awaitable[int]]


async def with_asyncruns(base_url: str, measure: Callable[[Stream], Awaitable[float]]) -> float:
    from asyncruns import BearerAuth, Client
    from asyncruns.wire import MessageDeltaEvent, TextDeltaBlock

    async with Client(base_url, auth=BearerAuth(KEY), request_timeout=TIMEOUT_S) as client:

        async def read() -> int:
            deltas = size = 0
            async with await client.threads.runs.create("thread_1", assistant_id="asst_1", stream=True) as stream:
                async for event in stream:
                    if isinstance(event, MessageDeltaEvent):
                        for block in event.data.delta.content or ():
                            if isinstance(block, TextDeltaBlock) and block.text:
                                deltas, size = deltas + 1, size + len(block.text.value or "")
            assert stream.message is not None
            assert len(stream.message.text) == size
            return deltas

        return await measure(read)


async def with_plain(base_url: str, measure: Callable[[Stream], Awaitable[float]]) -> float:
    import aiohttp
    import msgspec

    from asyncruns.wire import MessageDelta

    headers = {"Authorization": f"Bearer {KEY}", "OpenAI-Beta": "assistants=v2", "Accept": "text/event-stream"}
    decoder = msgspec.json.Decoder(MessageDelta)
    async with aiohttp.ClientSession(headers=headers) as session:

        async def read() -> int:
            deltas = 0
            rest = b""
            body = {"assistant_id": "asst_1", "stream": True}
            async with session.post(f"{base_url}/threads/thread_1/runs", json=body) as response:
                while data := await response.content.readany():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        name, _, text = event.partition(b"\ndata: ")
                        if name == b"event: thread.message.delta":
                            decoder.decode(text)
                            deltas += 1
            return deltas

        return await measure(read)


async def with_openai(base_url: str, measure: Callable[[Stream], Awaitable[float]]) -> float:
    import warnings

    from openai import AsyncOpenAI

    warnings.simplefilter("ignore")
    async with AsyncOpenAI(base_url=base_url, api_key=KEY, timeout=TIMEOUT_S) as client:

        async def read() -> int:
            deltas = size = 0
            stream = await client.beta.threads.runs.create("thread_1", assistant_id="asst_1", stream=True)
            async for event in stream:
                if event.event == "thread.message.delta":
                    for block in event.data.delta.content or ():
                        if block.type == "text" and block.text:
                            deltas, size = deltas + 1, size + len(block.text.value or "")
            return deltas

        return await measure(read)


WITH = {"asyncruns": with_asyncruns, "plain": with_plain, "openai": with_openai}


async def measure_client(name: str, base_url: str, pace: str) -> float:
    """Return the CPU time of one delta, in microseconds."""
    expected, pause = PACES[pace]

    async def measure(read: Stream) -> float:
        assert await read() == expected  # warm-up
        count = STREAMS[name][pause > 0]
        began = time.process_time()
        for _ in range(count):
            await read()
        return (time.process_time() - began) / (count * expected) * 1e6

    return await WITH[name](base_url, measure)


def measure_all() -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {pace: {name: [] for name in CLIENTS} for pace in PACES}
    for pace, (deltas, pause_ms) in PACES.items():
        with subprocess.Popen(
            [sys.executable, str(HERE / "stream_server.py"), str(deltas), str(pause_ms)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server:
            assert server.stdout is not None
            base_url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
            for repetition in range(REPETITIONS):
                # In turns and each time in another order, so that no client always has the quietest moment.
                for name in CLIENTS[repetition % 3 :] + CLIENTS[: repetition % 3]:
                    command = [sys.executable, __file__, "--client", name, "--base-url", base_url, "--pace", pace]
                    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    figures[pace][name].append(float(found))
                    print(f"{pace:>20} {name:<10} {float(found):8.1f} us", flush=True)
            server.communicate()
    return figures


def report(figures: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    medians = {pace: {name: statistics.median(runs) for name, runs in by.items()} for pace, by in figures.items()}
    return {
        "what": "CPU microseconds of the client for one streamed thread.message.delta, typed; median of repetitions",
        "deltas": {pace: deltas for pace, (deltas, _) in PACES.items()},
        "repetitions": REPETITIONS,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("asyncruns", "aiohttp", "msgspec", "openai")},
        "median_us": medians,
        "times_cheaper_than_openai": {
            pace: {name: round(by["openai"] / value, 1) for name, value in by.items()} for pace, by in medians.items()
        },
        "all_us": {
            pace: {name: [round(x, 2) for x in runs] for name, runs in by.items()} for pace, by in figures.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    parser.add_argument("--pace", choices=PACES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        print(asyncio.run(measure_client(arguments.client, arguments.base_url, arguments.pace)))
        return
    result = report(measure_all())
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "stream_cost.json").write_text(json.dumps(result, indent=2) + "\n")
    medians = result["median_us"]
    assert isinstance(medians, dict)
    plot_bars(
        medians,
        list(CLIENTS),
        list(PACES),
        "CPU time of the client for one streamed delta, microseconds (log)",
        results / "stream_cost.png",
    )
    print(json.dumps(result["times_cheaper_than_openai"], indent=2))


if __name__ == "__main__":
    main()
