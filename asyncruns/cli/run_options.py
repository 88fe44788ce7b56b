"""The options of `asyncruns doctor`, `list`, `show` and `cancel`, and their help."""

from __future__ import annotations

import argparse
from typing import Any, Final

from asyncruns.cli.arguments import a_count, add_command, add_server, add_version, seconds

DEFAULT_SHOWN: Final = 20
DEFAULT_REQUEST_TIMEOUT_S: Final = 10.0
DEFAULT_TRIED_MODEL: Final = "gpt-4o-mini"

_SERVER_HELP: Final = """
The server and its key are taken from the options or the environment as for `asyncruns watch`.
"""
_IDS_HELP: Final = """\
A run is named by THREAD_ID/RUN_ID, or by both ids one after the other; a response or a batch by its id. The ids of
batches begin with "batch_", those of Anthropic's message batches with "msgbatch_".
"""
_DOCTOR_EPILOG: Final = """\
Each line says what is well ("ok"), what is wrong and what to set ("wrong"), or what is only worth knowing ("note").
Nothing is created at the server without --try, which creates an assistant, a thread and a run, or a response at a
server without threads, cancels it, and deletes all of it; that may cost money.

exit codes: 0 nothing is wrong; 1 something is; 2 wrong usage; 130 interrupted by Ctrl-C.
"""
_LIST_EPILOG: Final = """\
The newest come first. Without --thread, responses and batches are listed, if the server has such lists; no server has
one of all runs.

exit codes: 0 listed, even if there are none; 1 the server has no such list, or did not answer; 2 wrong usage.
"""
_SHOW_EPILOG: Final = """\
exit codes: 0 shown, whatever its status is; 1 there is none, or the server did not answer; 2 wrong usage.
"""
_CANCEL_EPILOG: Final = """\
What had ended before keeps its status. Without --no-wait, the end of each is waited for.

exit codes, of several the highest:
  0  all have ended, or the cancel was accepted, with --no-wait     7    the end was not seen (unreachable, or too slow)
  1  the cancel was refused, or there is none of this id            130  interrupted by Ctrl-C (143 by SIGTERM)
  2  wrong usage
"""


def add_run_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands for a server and a problem."""
    _add_doctor(add_command(commands, "doctor", "Check the server and the settings.", _DOCTOR_EPILOG + _SERVER_HELP))
    _add_list(
        add_command(commands, "list", "List runs of threads, responses and batches.", _LIST_EPILOG + _SERVER_HELP)
    )
    _add_show(
        add_command(
            commands, "show", "Show one run, response or batch, once.", _IDS_HELP + "\n" + _SHOW_EPILOG + _SERVER_HELP
        )
    )
    _add_cancel(
        add_command(
            commands, "cancel", "Cancel runs, responses and batches.", _IDS_HELP + _CANCEL_EPILOG + _SERVER_HELP
        )
    )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--try", action="store_true", dest="try_out", help="also create, cancel and delete a run")
    parser.add_argument(
        "--model", default=DEFAULT_TRIED_MODEL, metavar="NAME", help="of what --try creates (default %(default)s)"
    )
    parser.add_argument("--assistant", metavar="ID", help="let --try use this assistant, and create none")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_REQUEST_TIMEOUT_S,
        metavar="SECONDS",
        help="for each request (default %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per check")
    add_version(parser)
    add_server(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--thread", action="append", default=[], metavar="ID", help="the runs of this thread; repeatable"
    )
    parser.add_argument(
        "--limit", type=a_count, default=DEFAULT_SHOWN, metavar="N", help="how many (default %(default)s)"
    )
    parser.add_argument(
        "--status", action="append", default=[], metavar="STATUS", help="only with this status; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_version(parser)
    add_server(parser)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the run, response or batch; or the thread of the RUN_ID that follows")
    parser.add_argument("run_id", metavar="RUN_ID", nargs="?", help="the run on that thread")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with nothing cut but credentials of MCP servers"
    )
    add_version(parser)
    add_server(parser)


def _add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="the runs, responses and batches")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until they have ended")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each")
    add_version(parser)
    add_server(parser)
