"""The command `asyncruns`: a demonstration; watches, batches, journals and checks from the shell; an emulated server.

Each command is imported when it is used, so that `--help` and `--version` are quick. Public: `main`.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from asyncruns.cli.options import make_parser
from asyncruns.cli.output import complain, complain_of_warnings
from asyncruns.cli.process import BROKEN_PIPE, INTERRUPTED, USAGE, lone_error
from asyncruns.errors import AsyncRunsError, ConfigurationError, InvalidRequestError

_MODULES: Final[Mapping[str, str]] = {"list": "run_list"}
"""The modules of the commands that are not named like their command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: The arguments after the program's name; by default those of the process.

    Raises:
        SystemExit: From the parser, after help (0) or for wrong usage (2).
    """
    # A server's texts may have characters that the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    complain_of_warnings()
    try:
        code = _perform(arguments)
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()  # a pipe that its reader has closed raises here, and not at the interpreter's exit
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        match lone_error(error):
            case BrokenPipeError():
                _drop_stdout()
                return BROKEN_PIPE
            case OSError(errno=errno.ENOSPC) as lone:
                _drop_stdout()
                complain(f"the output could not be written: {lone.strerror}")
                return 1
            case ConfigurationError() | InvalidRequestError() as lone:
                complain(str(lone))
                return USAGE
            case AsyncRunsError() as lone:
                complain(str(lone))
                return 1
            case _:
                raise
    return code


def _perform(arguments: Sequence[str] | None) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return USAGE
    command = importlib.import_module(f"asyncruns.cli.{_MODULES.get(options.command, options.command)}")
    code: int = command.main(options)
    return code


def _drop_stdout() -> None:
    """Redirect stdout to the null device: the interpreter flushes stdout at its exit, and would report an error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
