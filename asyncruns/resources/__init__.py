"""The operations of the API, named as in the official client. Most of them only build, send and decode.

Public: the names in `__all__`; the resources themselves are reached through a client: `client.threads.runs`. The
modules:

assistants, threads, messages, steps, responses, files, batches, message_batches   one resource each
webhooks           `client.webhooks`: checks and reads what a server sends by itself; webhook_secrets: what with
runs               `client.threads.runs`: run_operations, run_polling (helpers that wait) and run_streaming together
base               what all resources share: build a request, send it, decode the answer
uploads            what callers pass as `file=`, as a body; multipart: the form around it
file_content       the content of a file, read piece by piece
options            the options of every call; run_parameters, response_parameters: what is created
pages              lists, page by page
thread_items       creates runs and messages: with thread_lock (another run holds the thread) and adoption (the answer
                   to a create was lost); patient_reads reads for both
start_run          the first half of `Client.run`: a thread, a message, a run; keyed makes that safe to repeat
batch_submission   creates batches from requests: request_files writes and cuts them, batch_group is what several become
batch_results      reads the results of batches; group_outcome: how the watch of a group finished
response_client    the client through which a watch polls a response and creates the follow-ups; batch_client: a batch
"""

from asyncruns.resources.adoption import NONCE_KEY
from asyncruns.resources.base import FILE_SEARCH_CONTENT, PageCall, RawCalls, RawResponse
from asyncruns.resources.keyed import KEY_NAME
from asyncruns.resources.options import CallOptions
from asyncruns.resources.thread_lock import OnBusy

__all__ = [
    "FILE_SEARCH_CONTENT",
    "KEY_NAME",
    "NONCE_KEY",
    "CallOptions",
    "OnBusy",
    "PageCall",
    "RawCalls",
    "RawResponse",
]
