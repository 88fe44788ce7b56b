"""A headless Chromium, driven over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """One tab of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> Any:
        """Send a command, and return its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=10)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    async def run(self, script: str) -> Any:
        """Run JavaScript, and return its value."""
        done = await self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def wait_for(self, script: str) -> Any:
        """Run JavaScript again and again until its value is true, and return that."""
        for _ in range(200):
            found = await self.run(script)
            if found or found == {}:  # an element of the page arrives as an empty object
                return found
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {script}; the page shows {await self.run('document.body.innerText')}")

    async def picture(self, width: int = 800, height: int = 600) -> bytes:
        """Return a picture of the page as it is now, as PNG."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        shot = await self.command("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


class Browser:
    """A running browser."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    @asynccontextmanager
    async def tab(self, url: str) -> AsyncIterator[Tab]:
        """Open a tab; it is closed when the block is left."""
        async with self._session.put(URL(f"{self._url}/json/new?{quote(url, safe='')}", encoded=True)) as response:
            target = json.loads(await response.text())
        async with self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=2**26) as socket:
            yield Tab(socket)
        async with self._session.get(f"{self._url}/json/close/{target['id']}"):
            pass


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """Run a browser with a fresh profile in this folder."""
    assert CHROMIUM is not None, "install chromium"
    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        "--headless=new",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = folder / "DevToolsActivePort"
        for _ in range(300):
            if port.exists() and port.read_text().count("\n"):
                break
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as session:
            yield Browser(session, f"http://127.0.0.1:{port.read_text().splitlines()[0]}")
    finally:
        process.kill()
        await process.wait()
