"""What can be given on the command line, and what its help says."""

from __future__ import annotations

import argparse
import math
from typing import Any, Final

import asyncruns

DEFAULT_RUNS: Final = 36
DEFAULT_MODEL: Final = "gpt-4o-mini"
DEFAULT_DEMO_TIMEOUT_S: Final = 120.0
DEFAULT_MAX_OUTAGE_S: Final = 30.0

_KEY_HELP: Final = (
    "the key; other users of the machine can see it in `ps`, so better set ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY"
)
_WATCH_EPILOG: Final = """\
Tool calls are listed and not answered: the watch then ends with "needs the caller".

Without --base-url, ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY say where to ask (or else OPENAI_BASE_URL and
OPENAI_API_KEY). With --base-url and without --api-key, a key of the environment is used if it was set for this very
URL, and no key otherwise.

The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names is used, but not for this machine, nor for hosts in NO_PROXY.

exit codes:
  0  completed                    5    incomplete
  1  failed                       6    needs the caller (tool calls, approvals)
  2  wrong usage                  7    gave up (timeout, unreachable, refused, gone)
  3  cancelled                    130  interrupted by Ctrl-C (143 by SIGTERM)
  4  expired
"""
_DEMO_EPILOG: Final = """\
Without --base-url a server is emulated in this process and nothing leaves the machine. On a real server, assistants,
threads and runs are created (which may cost), and the assistants and threads are deleted at the end. The proxy that
HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names is used for it, but not for hosts in NO_PROXY.

exit codes: 0 if every run ended as it should (on a real server: if none needed the caller or was given up), else 1;
2 wrong usage; 130 interrupted by Ctrl-C.
"""


class _CommandParser(argparse.ArgumentParser):
    """Takes a positional that may be left out from behind options too; argparse settles it with those before them."""

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride] - overloads there, and all are served
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        options, rest = super().parse_known_args(args, namespace)
        if rest and not rest[0].startswith("-") and getattr(options, "run_id", "") is None:
            options.run_id = rest.pop(0)
        return options, rest


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="asyncruns", description="Wait for remote agent runs.", allow_abbrev=False, epilog="asyncruns COMMAND -h"
    )
    parser.add_argument("--version", action="version", version=f"asyncruns {asyncruns.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_CommandParser)
    _add_demo(
        _command(commands, "demo", "Run some dozens of runs with tools and watch them all at once.", _DEMO_EPILOG)
    )
    _add_watch(_command(commands, "watch", "Watch one run of a server, or one response, to its end.", _WATCH_EPILOG))
    _add_emulate(_command(commands, "emulate", "Serve the API from memory, on this machine, until Ctrl-C."))
    return parser


def _command(
    commands: argparse._SubParsersAction[_CommandParser], name: str, text: str, epilog: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=_count, default=DEFAULT_RUNS, metavar="N", help="how many (default %(default)s)")
    parser.add_argument("--base-url", metavar="URL", help="a real server, such as https://host.example/v1")
    parser.add_argument("--api-key", metavar="KEY", help=_KEY_HELP)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the assistants' model (default %(default)s)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_DEMO_TIMEOUT_S,
        metavar="SECONDS",
        help="for how long to wait for each run (default %(default)g)",
    )
    parser.add_argument("--plain", action="store_true", help="lines instead of a live table")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the thread of a run, or a response where no other id follows")
    parser.add_argument("run_id", metavar="RUN_ID", nargs="?", help="the run on that thread")
    parser.add_argument("--base-url", metavar="URL", help="where the API begins, such as https://host.example/v1")
    parser.add_argument("--api-key", metavar="KEY", help=_KEY_HELP)
    parser.add_argument("--auth-header", metavar="NAME", help="send the key in this header, such as api-key for Azure")
    parser.add_argument(
        "--query", action="append", type=_pair, default=[], metavar="NAME=VALUE", help="for every request; repeatable"
    )
    parser.add_argument(
        "--header", action="append", type=_pair, default=[], metavar="NAME=VALUE", help="for every request; repeatable"
    )
    parser.add_argument(
        "--version", choices=("v2", "v1", "none"), default="v2", help="of the header OpenAI-Beta (default %(default)s)"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="for the whole wait (default: a minute more than the run lives)",
    )
    parser.add_argument(
        "--max-outage",
        type=_seconds,
        default=DEFAULT_MAX_OUTAGE_S,
        metavar="SECONDS",
        help="give up when the server cannot be reached for so long (default %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def _add_emulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="0, the default, takes a free one")
    parser.add_argument("--api-key", metavar="KEY", help="refuse other keys; without it, every request is accepted")


# argparse prints the text of these errors, so they show no value: it may be a credential.


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number, 1 or more")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("give a port, 0 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError("give seconds, 0 or more")
    return seconds


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("give NAME=VALUE")
    return name, value
