"""An emulator in a process of its own, whose state is in a file: after a kill and a restart, it knows its runs.

Arguments: the port, and the file. It writes a line when it listens. What it did is saved before it answers, so
a kill in between loses an answer but not its effect, as with any server that has a database.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from asyncruns.testing import Emulator, Fault, FunctionCall, Scenario
from asyncruns.testing.emulator import SeenRequest

ROUNDS = tuple(tuple(FunctionCall("f", {"n": 10 * place + n}) for n in range(3)) for place in range(2))
SCENARIO = Scenario(queued=0.05, working=0.15, rounds=ROUNDS)
# Each submit is in flight for a while, before or after it takes effect: a kill hits some of both kinds.
SLOW_SUBMITS = (
    Fault(on="submit", delay_before=0.15, every=2, times=None),
    Fault(on="submit", delay_after=0.15, times=None),
)


class KeptEmulator(Emulator):
    def __init__(self, port: int, file: Path) -> None:
        super().__init__(SCENARIO, port=port)
        self._epoch = time.time()  # to the fraction, so that time never goes back from one life to the next
        self._file = file
        self.refused: list[str] = []
        if file.exists():
            self._store, self.refused = pickle.loads(file.read_bytes())

    def _act(self, seen: SeenRequest, *arguments: Any, **options: Any) -> Any:
        answer = super()._act(seen, *arguments, **options)
        if seen.operation == "submit" and answer.status >= 400:
            self.refused.append(json.loads(answer.body)["error"]["message"])
        if seen.method == "POST":
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(pickle.dumps((self._store, self.refused)))
            os.replace(fresh, self._file)
        return answer


async def serve(port: int, file: Path) -> None:
    emulator = KeptEmulator(port, file)
    emulator.inject(*SLOW_SUBMITS)
    async with emulator:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
