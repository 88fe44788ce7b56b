"""`asyncruns batch cancel`: request the cancellation of batches of both wires, by their ids.

It does not wait until they are cancelled, which may take minutes: `asyncruns batch watch` does.
"""

from __future__ import annotations

import argparse

from asyncruns.cli.batch_list import line_of
from asyncruns.cli.batch_servers import batches_of, connected, wire_of
from asyncruns.cli.output import complain, say, say_json
from asyncruns.errors import APIError


async def cancel_command(options: argparse.Namespace) -> int:
    """Cancel each batch, print what it is now, and return 0; 1 if one could not be cancelled."""
    code = 0
    batch_ids = list(dict.fromkeys(options.ids))
    async with connected(options, {wire_of(batch_id) for batch_id in batch_ids}) as clients:
        for batch_id in batch_ids:
            wire = wire_of(batch_id)
            batches = batches_of(clients[wire], wire)
            try:
                batch = await batches.cancel(batch_id)
            except APIError as error:  # the others can still be cancelled
                complain(str(error))
                code = 1
                continue
            if options.json:
                say_json(batch.to_dict())
            else:
                say(line_of(batches.alone.dialect.snapshot(batch)))
    return code
