"""The options of `asyncruns batch`, and their help."""

from __future__ import annotations

import argparse
from typing import Final

from asyncruns.cli.arguments import a_count, a_pair, add_command, add_server, seconds

DEFAULT_LISTED: Final = 20

_SERVER_HELP: Final = """
The ids of message batches, which are those of Anthropic's API, begin with "msgbatch_". Without --base-url, the server
and its key are taken from the environment: as for `asyncruns watch`, or for message batches from ANTHROPIC_API_KEY and
ANTHROPIC_BASE_URL (default: https://api.anthropic.com/v1), or else from ASYNCRUNS_BASE_URL and ASYNCRUNS_API_KEY.
"""
_BATCH_EPILOG: Final = """\
  ids=$(asyncruns batch submit requests.jsonl)
  asyncruns batch watch $ids
  asyncruns batch results $ids -o results.jsonl

asyncruns batch COMMAND -h
"""
_SUBMIT_EPILOG: Final = """\
FILE has one JSON object per line: {"custom_id": ..., "method": "POST", "url": ..., "body": ...}, or only bodies, for
which ids are made; or {"custom_id": ..., "params": ...} for a message batch of Anthropic's API. All lines are checked
before anything is sent. More than 50,000 lines or 200 MB become several batches.

The ids of the batches are printed on stdout, one per line; they are all that the other commands need.

exit codes: 0 created; 1 not created, or not all; 2 wrong usage, or a wrong line.
"""
_WATCH_EPILOG: Final = """\
Any number of batches, of both wires, are watched at once. What is interrupted goes on at the server: watch the same ids
again. On a terminal each batch has a bar; otherwise there is a line for each new status.

exit codes, of several batches the highest:
  0  completed, also if single requests failed    4    expired
  1  failed                                       7    gave up (timeout, unreachable, refused, gone)
  2  wrong usage                                  130  interrupted by Ctrl-C (143 by SIGTERM)
  3  cancelled
"""
_RESULTS_EPILOG: Final = """\
Each result is a JSON object on a line of its own: custom_id, kind ("answered", "failed", "expired", "cancelled"),
response, error, status_code, request_id. A batch that expired or was cancelled may have results, too.

exit codes: 0 a result for each request; 1 some are missing; 2 wrong usage, or the batch has not ended.
"""
_CANCEL_EPILOG: Final = """\
Requests that ended before keep their results. A batch may be "cancelling" for minutes: watch it to see its end.

exit codes: 0 all requests to cancel were accepted; 1 one was refused, as the batch has ended or is not there.
"""


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add the commands on batches to the parser of `asyncruns batch`."""
    parser.epilog = _BATCH_EPILOG
    commands = parser.add_subparsers(dest="batch_command", metavar="COMMAND", required=True)
    _add_submit(
        add_command(commands, "submit", "Create a batch of the requests in a file.", _SUBMIT_EPILOG + _SERVER_HELP)
    )
    _add_watch(add_command(commands, "watch", "Watch batches to their ends.", _WATCH_EPILOG + _SERVER_HELP))
    _add_results(add_command(commands, "results", "Print the results of a batch.", _RESULTS_EPILOG + _SERVER_HELP))
    _add_list(add_command(commands, "list", "List the newest batches.", _SERVER_HELP))
    _add_cancel(add_command(commands, "cancel", "Cancel batches.", _CANCEL_EPILOG + _SERVER_HELP))


def _add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the requests, one JSON object per line")
    parser.add_argument("--endpoint", metavar="PATH", help="such as /v1/chat/completions; default: that of the lines")
    parser.add_argument(
        "--metadata", action="append", type=a_pair, default=[], metavar="NAME=VALUE", help="of the batch; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per batch")
    add_server(parser)


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="the batches")
    parser.add_argument(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="for the watch of each batch (default: an hour longer than it can live)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per event")
    add_server(parser)


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the batch")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file, and not to stdout")
    add_server(parser)


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anthropic", action="store_true", help="message batches of Anthropic's API")
    parser.add_argument(
        "--limit", type=a_count, default=DEFAULT_LISTED, metavar="N", help="how many (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per batch")
    add_server(parser)


def _add_cancel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="+", help="the batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object per batch")
    add_server(parser)
