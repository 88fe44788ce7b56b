"""`asyncruns doctor`: check a server and the settings for it, and say of each what is well, or what to set.

It only reads, unless `--try` is given. It sends the key to no other host than the one that it was set for, and never
prints it.
"""

from __future__ import annotations

import argparse
from typing import Final
from urllib.parse import urlsplit

from asyncruns.cli.check_report import CheckReport
from asyncruns.cli.checks import check_clock, check_latency, check_limits, check_reach, check_wires
from asyncruns.cli.connect import chosen_server
from asyncruns.cli.doctor_settings import DoctorSettings, check_base_url_of, check_key_of, check_version_of
from asyncruns.cli.output import complain, counted, say
from asyncruns.cli.probes import THREADS, WIRES, ProbeAnswer, ProbeVerdict, send_probe, send_probes
from asyncruns.cli.process import run
from asyncruns.client.client import Client

_NOT_OF_API: Final = (ProbeVerdict.NO_PATH, ProbeVerdict.PAGE, ProbeVerdict.REDIRECT, ProbeVerdict.NOTHING)


def main(options: argparse.Namespace) -> int:
    """Examine the server, and return the exit code."""
    return run(examine(options, CheckReport(as_json=options.json)))


async def examine(options: argparse.Namespace, report: CheckReport) -> int:
    """Examine the server, print each finding, and return 0 if nothing is wrong, otherwise 1. Safe to cancel.

    Raises:
        ConfigurationError: No server is configured, or an option is not valid.
    """
    url, key = chosen_server(options.base_url, options.api_key)
    settings = DoctorSettings(options=options, base_url=url, key=key)
    async with settings.client() as client:
        first = await send_probe(client, THREADS)
        if check_reach(report, first, settings):
            answers = [first, *await send_probes(client, WIRES[1:])]
            await _examine(settings, report, client, answers)
    if not options.json:
        wrong = len(report.wrong)
        say("nothing is wrong" if not wrong else f"{counted(wrong, 'thing is', 'things are')} wrong")
    return 1 if report.wrong else 0


async def _examine(settings: DoctorSettings, report: CheckReport, client: Client, answers: list[ProbeAnswer]) -> None:
    if any(answer.verdict not in _NOT_OF_API for answer in answers):
        report.ok("base URL", settings.base_url + settings.proxy_words)
        await check_key_of(settings, report, answers)
        await check_version_of(settings, report, answers)
        check_wires(report, answers, urlsplit(settings.base_url).hostname or "")
    else:
        await check_base_url_of(settings, report, answers)
    check_clock(report, answers)
    served = [answer for answer in answers if answer.verdict is ProbeVerdict.SERVED]
    if served:
        check_limits(report, answers)
        await check_latency(report, client, served[0].probe, answers[0].seconds)
    if not settings.options.try_out:
        if served:
            report.note("lists, metadata", "not tried: that needs a run, and nothing is created without --try")
    elif served:
        from asyncruns.cli.doctor_try import try_out

        await try_out(settings, report, client, {answer.probe for answer in served})
    else:
        complain("--try does nothing: the server serves neither threads nor responses with these settings")
