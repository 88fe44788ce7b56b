"""The checks of `asyncruns doctor` that only read answers: reach, wires, clock, limits, latency."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from msgspec.structs import replace

from asyncruns.cli.advice import CLOCK_S, clock_words
from asyncruns.cli.check_report import CheckReport, Health
from asyncruns.cli.doctor_settings import DoctorSettings
from asyncruns.cli.probes import (
    LIST_OF_RESPONSES,
    RESPONSES,
    THREADS,
    Probe,
    ProbeAnswer,
    ProbeVerdict,
    send_probe,
)
from asyncruns.cli.times import span
from asyncruns.client.client import Client
from asyncruns.dialects.errors import RETIRED, has_retired
from asyncruns.errors import APIConnectionError, APITimeoutError
from asyncruns.http import rate_limit, wait_hint

LATENCY_POLLS: Final = 5
_SLOW_S: Final = 2.0
_FEW: Final = 0.1  # the share of a limit below which it is worth a word
_ALL: Final = Probe("all requests", "")
_STEP: Final = re.compile(r"\)\. (?=[A-Z])")


def check_reach(report: CheckReport, answer: ProbeAnswer, settings: DoctorSettings) -> bool:
    """Report if the server can't be reached, and return whether it can."""
    error, proxy = answer.error, settings.proxy_words
    if error is None:
        return True
    if isinstance(error, APITimeoutError) and error.sent:
        text = f"{settings.base_url} takes the connection, but does not answer within {span(answer.seconds)}{proxy}"
        report.bad(
            "server", text, "check that the server is well, and that this is its port; for a slow server: --timeout"
        )
    elif isinstance(error, APITimeoutError):
        text = f"no connection to {settings.base_url} within {span(answer.seconds)}{proxy}"
        report.bad(
            "server", text, f"check the host and the port in {settings.url_name}, and firewalls and proxies in between"
        )
    else:
        text, step = _parted(str(error))
        sent = isinstance(error, APIConnectionError) and error.sent
        step = "check that the server is well, and that this is its port" if sent else step
        report.bad("server", text + proxy, step.replace("base_url", settings.url_name))
    return False


def _parted(message: str) -> tuple[str, str]:
    """Return a message of the transport in two: what happened, and what to do."""
    places = list(_STEP.finditer(message))
    if not places:
        return message, ""
    return message[: places[-1].start() + 1], message[places[-1].end() :]


def check_wires(report: CheckReport, answers: Sequence[ProbeAnswer], host: str) -> None:
    """Report which parts of the API are served by a host."""
    verdicts = {answer.verdict for answer in answers}
    if verdicts == {ProbeVerdict.KEY}:
        return  # that is reported by itself
    if len(verdicts) == 1 and verdicts & {ProbeVerdict.TROUBLE, ProbeVerdict.LIMITED}:
        answers = [replace(answers[0], probe=_ALL)]
    has_list = any(answer.probe is LIST_OF_RESPONSES and answer.verdict is ProbeVerdict.SERVED for answer in answers)
    for answer in answers:
        name, verdict = answer.probe.name, answer.verdict
        if answer.probe is LIST_OF_RESPONSES:
            continue
        facts: dict[str, Any] = {"status": answer.status, "verdict": verdict.value}
        if verdict is ProbeVerdict.SERVED:
            lacks = ", without a list of all" if answer.probe is RESPONSES and not has_list else ""
            report.ok(name, f"served{lacks}", **facts)
        elif verdict is ProbeVerdict.LIMITED:
            hint = wait_hint(answer.response.headers) if answer.response else None
            wait = f"wait {span(hint)}" if hint else "wait"
            report.bad(name, f'429: "{answer.said}"', f"{wait}, and send fewer requests or raise the limit", **facts)
        elif verdict in (ProbeVerdict.TROUBLE, ProbeVerdict.PAGE, ProbeVerdict.NOTHING):
            status = f"{answer.status}: " if answer.status else ""
            report.bad(name, f'{status}"{answer.said}"', "ask its operators, or try again later", **facts)
        else:
            to_set = RETIRED if answer.probe is THREADS and has_retired(host) else ""
            report.note(name, f"{verdict.value} ({answer.status})", to_set, **facts)


def check_clock(report: CheckReport, answers: Sequence[ProbeAnswer]) -> None:
    """Report whether this machine's clock agrees with the server's."""
    offsets = [answer.clock_offset for answer in answers if answer.clock_offset is not None]
    if not offsets:
        report.note("clock", "the server sends no Date: expiries are judged by this machine's clock")
        return
    offset = median(offsets)
    if abs(offset) <= CLOCK_S:
        report.ok("clock", f"within {max(abs(offset), 1):.0f} s of the server's", offset=round(offset, 1))
        return
    report.bad(
        "clock",
        f"{clock_words(offset)}: webhooks are refused if they seem to be 300 s old, and tokens and certificates expire "
        "at other times. Watches go by the server's clock",
        "set the one that is wrong; `timedatectl` shows this machine's",
        offset=round(offset, 1),
    )


def check_limits(report: CheckReport, answers: Sequence[ProbeAnswer]) -> None:
    """Report the limit of requests that the headers of the answers show."""
    limits = [found for answer in answers if answer.response and (found := rate_limit(answer.response.headers))]
    if not limits:
        report.note("limits", "the answers have no headers for a limit of requests")
        return
    least = min(limits, key=lambda limit: limit.remaining)
    of = f" of {least.limit:g}" if least.limit is not None else ""
    reset = f", all again in {span(least.reset)}" if least.reset is not None else ""
    is_low = least.remaining <= (least.limit or 0) * _FEW
    report.add(
        Health.NOTE if is_low else Health.OK,
        "limits",
        f"{least.remaining:g}{of} requests are left{reset}",
        "poll less: requests_per_second= of a fleet" if is_low else "",
        remaining=least.remaining,
        limit=least.limit,
        reset=least.reset,
    )


async def check_latency(report: CheckReport, client: Client, probe: Probe, first: float) -> None:
    """Measure how long a few reads take, one after the other, and report it. Safe to cancel."""
    taken = [answer.seconds for _ in range(LATENCY_POLLS) if not (answer := await send_probe(client, probe)).error]
    if not taken:
        report.bad("latency", "the server stopped answering", "run `asyncruns doctor` again")
        return
    middle = median(taken)
    text = f"{_ms(middle)}, the median of {len(taken)}, at most {_ms(max(taken))}; with connecting {_ms(first)}"
    facts = {"median": round(middle, 4), "longest": round(max(taken), 4), "first": round(first, 4)}
    if middle > _SLOW_S:
        report.note("latency", text, "poll less, and raise request_timeout= if requests time out", **facts)
    else:
        report.ok("latency", text, **facts)


def _ms(seconds: float) -> str:
    if seconds >= 10:
        return span(seconds)
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
