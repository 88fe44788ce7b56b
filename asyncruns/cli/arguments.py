"""What the options of several commands share: their types, and those that choose the server."""

from __future__ import annotations

import argparse
import math
from typing import Any, Final

KEY_HELP: Final = (
    "the key; other users of this machine can see it in `ps`: prefer ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY"
)


def add_command(
    commands: argparse._SubParsersAction[Any], name: str, text: str, epilog: str = ""
) -> argparse.ArgumentParser:
    """Add a command, and return its parser; `text` describes it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the server is, and what every request to it has."""
    parser.add_argument("--base-url", metavar="URL", help="where the API begins, such as https://host.example/v1")
    parser.add_argument("--api-key", metavar="KEY", help=KEY_HELP)
    parser.add_argument("--auth-header", metavar="NAME", help="send the key in this header, such as api-key for Azure")
    parser.add_argument(
        "--query", action="append", type=a_pair, default=[], metavar="NAME=VALUE", help="for every request; repeatable"
    )
    parser.add_argument(
        "--header", action="append", type=a_pair, default=[], metavar="NAME=VALUE", help="for every request; repeatable"
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add the option for the version that requests about threads, runs and assistants carry."""
    parser.add_argument(
        "--version", choices=("v2", "v1", "none"), default="v2", help="of the header OpenAI-Beta (default %(default)s)"
    )


def version_of(options: argparse.Namespace) -> str | None:
    """Return the version that `--version` names; None for no header, as for commands that lack the option."""
    version: str = getattr(options, "version", "none")
    return None if version == "none" else version


# argparse prints the text of these errors, so they must not show the value: it may be a credential.


def a_count(text: str) -> int:
    """Return a whole number, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("give a whole number, 1 or more")
    return int(text)


def a_port(text: str) -> int:
    """Return a port."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("give a port, 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """Return seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:  # also refuses NaN
        raise argparse.ArgumentTypeError("give seconds, 0 or more")
    return value


_UNITS_S: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def an_age(text: str) -> float:
    """Return seconds, from a number with a unit: "90s", "30m", "2h", "7d"."""
    number = text.rstrip("smhd")
    try:
        return seconds(number) * _UNITS_S[text.removeprefix(number)]
    except (argparse.ArgumentTypeError, KeyError):
        raise argparse.ArgumentTypeError("give a number with a unit: 90s, 30m, 2h, 7d") from None


def a_pair(text: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError("give NAME=VALUE")
    return name, value
