"""`asyncruns --print-completion SHELL`: print what a shell needs to complete commands and options. Needs `shtab`."""

from __future__ import annotations

import argparse
from typing import Any, Final

SHELLS: Final = ("bash", "zsh", "fish")


class _PrintCompletion(argparse.Action):
    """Prints the completion of the whole command line, and exits."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: Any, option: str | None = None
    ) -> None:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("for completion: pip install 'asyncruns[cli]'")
        print(shtab.complete(parser, shell=values))
        parser.exit()


def add_completion(parser: argparse.ArgumentParser) -> None:
    """Add the option that prints the completion."""
    parser.add_argument(
        "--print-completion", action=_PrintCompletion, choices=SHELLS, help="print what this shell needs to complete"
    )
