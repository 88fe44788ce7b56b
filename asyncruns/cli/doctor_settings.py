"""The checks of `asyncruns doctor` that find a better setting by trying others: base URL, key, version.

Other settings are only tried at the same host: the key was set for it.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from asyncruns.cli.arguments import version_of
from asyncruns.cli.check_report import CheckReport
from asyncruns.cli.connect import connect
from asyncruns.cli.probes import THREADS, WIRES, ProbeAnswer, ProbeVerdict, send_probe, send_probes
from asyncruns.client.client import Client
from asyncruns.client.environment import servers_of_environment
from asyncruns.transport.urls import proxy_of_environment

_OTHER_HEADERS: Final = ("api-key", "x-api-key", "x-portkey-api-key")
_VERSION_AT_END: Final = re.compile(r"/v\d+[a-z0-9]*$")
_VERSIONS: Final = ("v2", "v1", None)
_BETA: Final = "openai-beta"
_ANSWERS: Final = (ProbeVerdict.SERVED, ProbeVerdict.KEY, ProbeVerdict.VERSION)


class DoctorSettings(Struct):
    """The settings that are checked.

    Attributes:
        options: The command line.
        base_url: The URL of the server.
        key: The key for it; None for none.
    """

    options: argparse.Namespace
    base_url: str
    key: str | None

    @property
    def url_name(self) -> str:
        """Where the base URL comes from, as a text that says where to change it."""
        if self.options.base_url is not None:
            return "--base-url"
        return "ASYNCRUNS_BASE_URL" if os.environ.get("ASYNCRUNS_BASE_URL", "").strip() else "OPENAI_BASE_URL"

    @property
    def key_name(self) -> str:
        """Where the key comes from, or would."""
        if self.options.api_key is not None:
            return "--api-key"
        return "OPENAI_API_KEY" if self.url_name == "OPENAI_BASE_URL" else "ASYNCRUNS_API_KEY"

    @property
    def own_beta(self) -> str | None:
        """The header of the version, if it is set by itself with `--header`."""
        return next((value for name, value in self.options.header if name.lower() == _BETA), None)

    @property
    def proxy_words(self) -> str:
        """How the server is reached, if a proxy of the environment is used: its host and port, without a password."""
        proxy = urlsplit(proxy_of_environment(self.base_url) or "")
        port = f":{proxy.port}" if proxy.port else ""
        return f", through the proxy {proxy.hostname}{port} of the environment" if proxy.hostname else ""

    def client(self, *, base_url: str = "", auth_header: str = "") -> Client:
        """Make a client with these settings, or with others for the same host; it retries nothing."""
        return self._client(base_url, auth_header, version_of(self.options), dict(self.options.header))

    def of_version(self, version: str | None) -> Client:
        """Make a client that sends another version."""
        headers = {name: value for name, value in self.options.header if name.lower() != _BETA}
        return self._client("", "", version, headers)

    def _client(self, base_url: str, auth_header: str, version: str | None, headers: dict[str, str]) -> Client:
        return connect(
            base_url or self.base_url,
            self.key,
            auth_header=auth_header or self.options.auth_header,
            headers=headers,
            default_query=dict(self.options.query),
            version=version,
            request_timeout=self.options.timeout or None,
            max_retries=0,
        )


async def check_base_url_of(settings: DoctorSettings, report: CheckReport, answers: Sequence[ProbeAnswer]) -> None:
    """Report that nothing of the API is at the base URL, and find out where it is."""
    first = next((answer for answer in answers if answer.verdict is not ProbeVerdict.NOTHING), answers[0])
    url, statuses = settings.base_url, {answer.status for answer in answers if answer.status is not None}
    listed = ", ".join(map(str, sorted(statuses)))
    if first.verdict is ProbeVerdict.REDIRECT and first.response is not None:
        target = first.response.headers.get("location", "").partition("?")[0]
        where = target.removesuffix(first.probe.path) or "another path"
        text = f"{url} redirects to {where}; redirects are not followed, as the key is for this host"
        report.bad("base URL", text, f"set {settings.url_name} to {where}, if that is the server", redirect=where)
        return
    for other in other_urls(url):
        async with settings.client(base_url=other) as client:
            found = await send_probes(client, WIRES)
        if any(answer.verdict in _ANSWERS for answer in found):
            text = f"nothing of the API is at {url} ({listed}), but at {other}"
            report.bad("base URL", text, f"set {settings.url_name} to {other}", better=other)
            return
    if first.verdict is ProbeVerdict.PAGE:
        text = f'{url} answers {first.status} with what is not of the API: "{first.said}"{settings.proxy_words}'
        report.bad(
            "base URL", text, f"a proxy, a login page or another application answers there: check {settings.url_name}"
        )
        return
    text = f"nothing of the API is at {url} ({listed}), nor with or without /v1"
    report.bad("base URL", text, f"set {settings.url_name} to the URL below which threads or responses are")


def other_urls(base_url: str) -> Iterator[str]:
    """Yield the base URLs that may have been meant."""
    url = base_url.rstrip("/")
    without = _VERSION_AT_END.sub("", url)
    if without == url:
        yield f"{url}/v1"
        return
    if without.endswith("/v1"):  # twice
        yield without
    yield f"{without}/v1"
    yield without


async def check_key_of(settings: DoctorSettings, report: CheckReport, answers: Sequence[ProbeAnswer]) -> None:
    """Report whether the key is accepted, and by what header it would be."""
    refused = [answer for answer in answers if answer.verdict is ProbeVerdict.KEY]
    if not refused or any(answer.verdict is ProbeVerdict.SERVED for answer in answers):
        parts = ", ".join(answer.probe.name for answer in refused)
        sent = f"{settings.key_name} is accepted" if settings.key else "none is set, and none is needed"
        report.ok("key", f"{sent}; not for {parts}" if parts else sent)
        return
    answer = refused[0]
    text = f'{answer.status}: "{answer.said}"'
    if settings.key is None:
        others = [url for url, key in servers_of_environment() if key]
        why = f"; the key of the environment is for {', '.join(others)}, so it is not sent" if others else ""
        to_set = "--api-key, or ASYNCRUNS_BASE_URL with ASYNCRUNS_API_KEY"
        if settings.url_name != "--base-url":
            to_set = settings.key_name
        report.bad("key", f"none is set, and the server wants one{why}; {text}", f"set {to_set}")
        return
    for header in _OTHER_HEADERS if settings.options.auth_header is None else ():
        async with settings.client(auth_header=header) as client:
            if (await send_probe(client, answer.probe)).verdict is not ProbeVerdict.KEY:
                report.bad(
                    "key", f"refused as a bearer token, accepted as the header {header}", f"add --auth-header {header}"
                )
                return
    to_set = f"set {settings.key_name} to a key for {settings.base_url}; this one may have expired, or may not do this"
    report.bad("key", f"{settings.key_name} is refused, {text}", to_set)


async def check_version_of(settings: DoctorSettings, report: CheckReport, answers: Sequence[ProbeAnswer]) -> None:
    """Report whether the version of the API is accepted, and which one would be."""
    sent = settings.own_beta or (f"assistants={version_of(settings.options)}" if version_of(settings.options) else "")
    header = f"OpenAI-Beta: {sent}" if sent else "no header OpenAI-Beta"
    refused = [answer for answer in answers if answer.verdict is ProbeVerdict.VERSION]
    if not refused:
        if any(answer.probe is THREADS and answer.verdict is ProbeVerdict.SERVED for answer in answers):
            report.ok("version", f"{header} is sent, and not refused")
        return
    answer = refused[0]
    text = f'{answer.status} for {answer.probe.name} with {header}: "{answer.said}"'
    if _is_about_query(answer.said):
        query = dict(settings.options.query).get("api-version")
        to_set = "add --query api-version=v1 for Azure AI Foundry, =2024-05-01-preview for Azure OpenAI"
        report.bad("version", f"{text}; api-version={query or 'not sent'}", to_set)
        return
    for version in _VERSIONS:
        async with settings.of_version(version) as client:
            if (await send_probe(client, answer.probe)).verdict is not ProbeVerdict.VERSION:
                report.bad("version", text, _to_set_version(settings, version), better=version)
                return
    report.bad("version", text, "what the server says; neither v2 nor v1 nor no header OpenAI-Beta is accepted")


def _to_set_version(settings: DoctorSettings, version: str | None) -> str:
    instead = f" in place of --header OpenAI-Beta={settings.own_beta}" if settings.own_beta else ""
    return f"add --version {version or 'none'}{instead}; in Python: Client(version={version!r})"


def _is_about_query(said: str) -> bool:
    return re.search(r"api[-_ ]version", said, re.IGNORECASE) is not None and _BETA not in said.lower()
