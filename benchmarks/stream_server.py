"""A server that is cheaper than any client: it streams a run of many deltas, each event as an HTTP chunk of its own.

Runs in a process of its own, prints its port, and serves until its standard input is closed. Its arguments are the
number of deltas and the pause between events in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys

AT_ONCE = 64 * 1024
RUN = {
    "id": "run_abc123",
    "object": "thread.run",
    "created_at": 1_750_000_000,
    "assistant_id": "asst_abc123",
    "thread_id": "thread_abc123",
    "started_at": None,
    "expires_at": 1_750_000_600,
    "cancelled_at": None,
    "failed_at": None,
    "completed_at": None,
    "required_action": None,
    "last_error": None,
    "model": "gpt-4o",
    "instructions": "You help with the weather.",
    "tools": [],
    "tool_resources": {},
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "max_completion_tokens": None,
    "max_prompt_tokens": None,
    "truncation_strategy": {"type": "auto", "last_messages": None},
    "incomplete_details": None,
    "usage": None,
    "response_format": "auto",
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
MESSAGE = {
    "id": "msg_HdHuRcbxQRyO6ttCZt2PeSLO",
    "object": "thread.message",
    "created_at": 1_750_000_001,
    "assistant_id": "asst_abc123",
    "thread_id": "thread_abc123",
    "run_id": "run_abc123",
    "status": "in_progress",
    "incomplete_details": None,
    "incomplete_at": None,
    "completed_at": None,
    "role": "assistant",
    "content": [],
    "attachments": [],
    "metadata": {},
}


def chunk(name: str, data: object) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    event = f"event: {name}\ndata: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def chunks(deltas: int) -> list[bytes]:
    found = [chunk(f"thread.run.{status}", {**RUN, "status": status}) for status in ("queued", "in_progress")]
    found.append(chunk("thread.message.in_progress", MESSAGE))
    words = [
        "The",
        "weather",
        "in",
        "Paris",
        "is",
        "sunny",
        "with",
        "some",
        "clouds",
        "and",
        "a",
        "light",
        "breeze",
        "from",
        "the",
        "west",
    ]
    for number in range(deltas):
        content = [{"index": 0, "type": "text", "text": {"value": words[number % len(words)]}}]
        delta = {"id": MESSAGE["id"], "object": "thread.message.delta", "delta": {"content": content}}
        found.append(chunk("thread.message.delta", delta))
    found.append(chunk("thread.run.completed", {**RUN, "status": "completed"}))
    return [*found, chunk("done", "[DONE]"), b"0\r\n\r\n"]


async def serve(deltas: int, pause_s: float) -> None:
    pieces = chunks(deltas)
    if not pause_s:
        whole = b"".join(pieces)
        pieces = [whole[begin : begin + AT_ONCE] for begin in range(0, len(whole), AT_ONCE)]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                lengths = [line.split(b":")[1] for line in request.lower().splitlines() if b"content-length" in line]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                writer.write(head)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    if pause_s:
                        await asyncio.sleep(pause_s)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 1000))
