"""The page of the web backend in a headless Chromium. Not part of the ordinary run: it needs one to be installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from backend import Backend, backend
from chromium import Browser, Tab, browser

pytestmark = [pytest.mark.real_time, pytest.mark.asyncio]


@pytest.fixture
async def running() -> AsyncIterator[Backend]:
    async with backend() as running:
        yield running


@pytest.fixture
async def chrome(tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser(tmp_path) as chrome:
        yield chrome


async def ask(tab: Tab, text: str) -> None:
    await tab.wait_for("document.querySelector('form') && document.readyState == 'complete'")
    await tab.run(f"form.text.value = {text!r}; form.requestSubmit()")


async def test_a_question_is_answered_live(running: Backend, chrome: Browser) -> None:
    async with chrome.tab(running.url) as tab:
        await ask(tab, "Weather in Paris?")
        await tab.wait_for("document.querySelector('.status.needs_caller')")
        await tab.wait_for("document.querySelector('.calls').innerText.includes('asking the station')")
        await tab.wait_for("document.querySelector('.status.succeeded')")
        shown = await tab.run("document.querySelector('article').innerText")
        assert shown.split("\n") == [
            "answered",
            "Weather in Paris?",
            "get_weather returned 21 degrees in city",
            "get_weather: 21 degrees in city",
        ]
        assert len(await tab.picture()) > 5_000


async def test_a_late_tab_shows_the_same(running: Backend, chrome: Browser) -> None:
    async with chrome.tab(running.url) as tab:
        await ask(tab, "Weather in Oslo?")
        link = await tab.wait_for("document.querySelector('.title')?.href")
        await asyncio.sleep(1.0)
        async with chrome.tab(link) as late:
            await late.wait_for("document.querySelector('.status.succeeded')")
            assert await late.run("document.querySelector('.title').innerText") == "Weather in Oslo?"
            assert await late.run("document.querySelector('.answer').innerText") == "get_weather: 21 degrees in city"


async def test_text_of_a_server_is_no_markup(running: Backend, chrome: Browser) -> None:
    async with chrome.tab(running.url) as tab:
        await ask(tab, "<img src=x onerror=document.title='hacked'>")
        await tab.wait_for("document.querySelector('.status.succeeded')")
        assert await tab.run("document.querySelectorAll('article img').length") == 0
        assert await tab.run("document.title") == "Ask"
