"""The memory that files of 200 MB take, measured in a process of its own."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from asyncruns import Client

SIZE = 200 * 1024 * 1024
MOST_GROWTH = 64 * 1024 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("library", ["aiohttp", "httptools"])
def test_a_file_of_200_mb_is_sent_and_received_in_little_memory(library: str, tmp_path: Path) -> None:
    command = [sys.executable, __file__, library, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    growth = [int(line) for line in done.stdout.split()]
    assert len(growth) == 3
    assert max(growth) < MOST_GROWTH


async def main(library: str, folder: Path) -> None:
    """Upload a file, read it line by line, and write it to a file; print how far the memory has grown after each."""
    from aiohttp import web

    line = bytes(99_999) + b"\n"

    async def receive(request: web.Request) -> web.Response:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.json_response({"id": "file-1", "object": "file", "bytes": size})

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(SIZE // len(line)):
            await response.write(line)
        return response

    app = web.Application(client_max_size=2 * SIZE)
    app.router.add_post("/files", receive)
    app.router.add_get("/files/{id}/content", send)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with Client(f"http://127.0.0.1:{port}", http=library) as client:  # type: ignore[arg-type]
        await client.files.create(file=b"", purpose="batch")  # imports everything
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def report() -> None:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
            sys.stdout.write(f"{grown * 1024}\n")

        sent = await client.files.create(file=folder / "in", purpose="batch")
        assert isinstance(sent.bytes, int)
        assert sent.bytes > SIZE
        report()
        lines = (await client.files.content("file-1")).lines()
        assert {len(each) async for each in lines} == {len(line) - 1}
        report()
        await (await client.files.content("file-1")).write_to_file(folder / "out")
        report()
    await runner.cleanup()


if __name__ == "__main__":
    path = Path(sys.argv[2])
    with (path / "in").open("wb") as file:
        file.truncate(SIZE)  # takes no room on the disk
    asyncio.run(main(sys.argv[1], path))
    assert (path / "out").stat().st_size == SIZE // 100_000 * 100_000
    (path / "out").unlink()
