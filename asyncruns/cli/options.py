"""The options of the command line, and their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

import asyncruns
from asyncruns.cli.arguments import KEY_HELP, a_count, a_port, add_command, add_server, add_version, seconds
from asyncruns.cli.batch_options import add_batch
from asyncruns.cli.completion import add_completion
from asyncruns.cli.monitor_options import MONITOR_EPILOG, add_monitor
from asyncruns.cli.reap_options import EPILOG as REAP_EPILOG
from asyncruns.cli.reap_options import add_reap
from asyncruns.cli.run_options import add_run_commands
from asyncruns.cli.timeline_options import TIMELINE_EPILOG, add_timeline

DEFAULT_RUNS: Final = 36
DEFAULT_MODEL: Final = "gpt-4o-mini"
DEFAULT_DEMO_TIMEOUT_S: Final = 120.0
DEFAULT_MAX_OUTAGE_S: Final = 30.0

_WATCH_EPILOG: Final = """\
Tool calls are listed but not answered: the watch then ends with "needs the caller".

Without --base-url, the server and its key are taken from ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY, which may be left
out, or else from OPENAI_BASE_URL (default: https://api.openai.com/v1) and OPENAI_API_KEY. With --base-url but without
--api-key, a key from the environment is used only if it was set for the same URL.

The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is used, but not for this machine, nor for hosts in NO_PROXY.

exit codes:
  0  completed                    5    incomplete
  1  failed                       6    needs the caller (tool calls, approvals)
  2  wrong usage                  7    gave up (timeout, unreachable, refused, gone)
  3  cancelled                    130  interrupted by Ctrl-C (143 by SIGTERM)
  4  expired
"""
_DEMO_EPILOG: Final = """\
Without --base-url, a server is emulated in this process and nothing leaves the machine. On a real server, assistants,
threads and runs are created (which may cost money), and the assistants and threads are deleted at the end. The proxy in
HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is used for it, but not for hosts in NO_PROXY.

exit codes: 0 if every run ended as expected (on a real server: if no run needed the caller or was given up), else 1;
2 wrong usage; 130 interrupted by Ctrl-C.
"""


_EMULATE_EPILOG: Final = """\
--scenario FILE is JSON with the fields of asyncruns.testing.Scenario, or a list of such objects, which new runs and
responses get in turn:

  [{"working": 2, "rounds": [[{"name": "get_weather", "arguments": {"city": "Paris"}}]], "answer": "Sunny."},
   {"end": "failed", "error_code": "server_error"}]

Without it, a run calls each of its functions once.

--batch FILE is the same for new batches of both wires, with the fields of asyncruns.testing.BatchScenario, of which
failing and lost are lists of custom ids:

  {"working": 20, "failing": ["request-3"], "lost": ["request-5"]}

--fault has the fields of asyncruns.testing.Fault, as NAME=VALUE pairs (a name alone is true) or as a JSON object. It
strikes once, unless times says how often; times=none is always:

  --fault on=poll,status=500,times=10                the next ten polls
  --fault on=submit,drop,acts,every=3,times=none     of every third submit, the answer is lost
  --fault '{"on": "poll", "status": 429, "headers": {"Retry-After": "2"}}'
"""


class _CommandParser(argparse.ArgumentParser):
    """Accepts optional ids also after options; argparse would match them together with the argument before these."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - handles all overloads of the base
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        options, rest = super().parse_known_args(args, namespace)
        if rest and not rest[0].startswith("-") and getattr(options, "run_id", "") is None:
            options.run_id = rest.pop(0)
        while rest and not rest[0].startswith("-") and isinstance(getattr(options, "ids", None), list):
            options.ids.append(rest.pop(0))
        return options, rest


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="asyncruns", description="Watch remote agent runs.", allow_abbrev=False, epilog="asyncruns COMMAND -h"
    )
    parser.add_argument("--version", action="version", version=f"asyncruns {asyncruns.__version__}")
    add_completion(parser)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_CommandParser)
    _add_demo(
        add_command(commands, "demo", "Create dozens of runs with tools and watch them all at once.", _DEMO_EPILOG)
    )
    _add_watch(add_command(commands, "watch", "Watch one run of a server, or one response, to its end.", _WATCH_EPILOG))
    add_monitor(add_command(commands, "monitor", "Watch many runs in one live table.", MONITOR_EPILOG))
    add_run_commands(commands)
    add_batch(
        add_command(commands, "batch", "Submit batches of requests, watch or cancel them, and print their results.")
    )
    add_reap(
        add_command(commands, "reap", "List the unfinished runs of a journal; resume, cancel or forget.", REAP_EPILOG)
    )
    add_timeline(add_command(commands, "timeline", "Draw when recorded runs did what, as a page.", TIMELINE_EPILOG))
    _add_emulate(
        add_command(commands, "emulate", "Serve the API from memory, on this machine, until Ctrl-C.", _EMULATE_EPILOG)
    )
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=a_count, default=DEFAULT_RUNS, metavar="N", help="how many (default %(default)s)"
    )
    parser.add_argument("--base-url", metavar="URL", help="a real server, such as https://host.example/v1")
    parser.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the assistants' model (default %(default)s)")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_DEMO_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to watch each run (default %(default)g)",
    )
    parser.add_argument("--plain", action="store_true", help="print lines instead of a live table")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the thread of a run, or a response if no RUN_ID follows")
    parser.add_argument("run_id", metavar="RUN_ID", nargs="?", help="the run on that thread")
    add_server(parser)
    add_version(parser)
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="for the whole watch (default: a minute longer than the run can live)",
    )
    parser.add_argument(
        "--max-outage",
        type=seconds,
        default=DEFAULT_MAX_OUTAGE_S,
        metavar="SECONDS",
        help="give up after the server was unreachable for this long (default %(default)g)",
    )
    parser.add_argument(
        "--observe",
        action="store_true",
        help="another process answers the calls: go on while the run waits for outputs",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")


def _add_emulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default %(default)s)")
    parser.add_argument("--port", type=a_port, default=0, help="0, the default, takes a free port")
    parser.add_argument("--api-key", metavar="KEY", help="refuse other keys; without it, every request is accepted")
    parser.add_argument("--scenario", type=_scenarios, metavar="FILE", help="JSON: what runs and responses do")
    parser.add_argument("--batch", type=_batch_scenarios, metavar="FILE", help="JSON: what batches do")
    parser.add_argument(
        "--fault", action="append", type=_fault, default=[], metavar="FAULT", help="what goes wrong; repeatable"
    )
    parser.add_argument(
        "--webhook-url", metavar="URL", help="post a signed event there when a response in the background ends"
    )
    parser.add_argument(
        "--webhook-secret", metavar="SECRET", help="sign these with it; by default one is made and printed"
    )


# The emulator is imported late: the other commands don't need it.


def _scenarios(path: str) -> Any:
    from asyncruns.cli.scripts import scenarios_from

    return _explained(scenarios_from, path)


def _batch_scenarios(path: str) -> Any:
    from asyncruns.cli.scripts import batch_scenarios_from

    return _explained(batch_scenarios_from, path)


def _fault(text: str) -> Any:
    from asyncruns.cli.scripts import fault_from

    return _explained(fault_from, text)


def _explained(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # argparse would not show the text of a ValueError
