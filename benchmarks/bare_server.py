"""A server that is cheaper than any client: a bare asyncio protocol that answers every request with the same run.

Runs in a process of its own, prints its port, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import tempfile

CREATED_AT = 1_750_000_000


def run_body(size: int) -> bytes:
    """Return the JSON of a run of about `size` bytes; above 2 KB it has 20 tools and, if needed, long instructions."""
    run = {
        "id": "run_abc123",
        "object": "thread.run",
        "created_at": CREATED_AT,
        "assistant_id": "asst_abc123",
        "thread_id": "thread_abc123",
        "status": "in_progress",
        "started_at": CREATED_AT + 1,
        "expires_at": CREATED_AT + 600,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "required_action": None,
        "last_error": None,
        "model": "gpt-4o",
        "instructions": "",
        "tools": [],
        "tool_resources": {},
        "metadata": {"user": "42"},
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
    if size > 2048:
        run["tools"] = [tool(number) for number in range(20)]
    left = size - len(json.dumps(run))
    run["instructions"] = ("You help with the weather. " * (left // 27 + 1))[: max(left, 0)]
    return json.dumps(run).encode()


def tool(number: int) -> dict[str, object]:
    properties = {
        f"field_{n}": {"type": "string", "description": "A field that the function needs to do its work."}
        for n in range(4)
    }
    parameters = {"type": "object", "properties": properties, "required": ["field_0"], "additionalProperties": False}
    function = {"name": f"function_{number}", "description": "Does one of the things.", "parameters": parameters}
    return {"type": "function", "function": function}


class Answer(asyncio.Protocol):
    """Answers at the end of each request head; the requests of this benchmark have no bodies."""

    body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        *requests, self.rest = (self.rest + data).split(b"\r\n\r\n")
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(self.body * len(requests))


def own_tls() -> ssl.SSLContext:
    """Return a context with a self-signed certificate, made by openssl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = f"{folder}/key.pem", f"{folder}/certificate.pem"
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=127.0.0.1 -days 2"
        )
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context.load_cert_chain(certificate, key)
    return context


async def serve(size: int, *, tls: bool = False) -> None:
    body = run_body(size)
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sun, 15 Jun 2025 15:06:40 GMT\r\n"
        "x-request-id: req_0123456789abcdef0123456789abcdef\r\nopenai-processing-ms: 60\r\n"
        f"openai-version: 2020-10-01\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    Answer.body = head.encode() + body
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answer, "127.0.0.1", 0, ssl=own_tls() if tls else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), tls="--tls" in sys.argv))
