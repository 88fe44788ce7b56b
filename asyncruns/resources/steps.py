"""Run steps: https://platform.openai.com/docs/api-reference/run-steps"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

from asyncruns.resources.base import PageCall, Resource
from asyncruns.resources.options import CallOptions
from asyncruns.wire import RunStep


class Steps(Resource):
    """`client.threads.runs.steps`. Every method also takes the `CallOptions`."""

    def list(
        self,
        run_id: str,
        *,
        thread_id: str,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        after: str | None = None,
        before: str | None = None,
        include: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> PageCall[RunStep]:
        """List the steps of a run: `await` for one page, `async for` for all. Safe to cancel.

        Args:
            limit: Items per page, 1 to 100; the server's default is 20.
            order: Oldest ("asc") or newest ("desc") first, by creation; the server's default is "desc".
            after: Id of the item before the page.
            before: Id of the item after the page.
            include: What else to send: `[FILE_SEARCH_CONTENT]` (in `asyncruns.resources`) for the texts that a file
                search found. Sent as `include[]`.
        """
        query = {"limit": limit, "order": order, "after": after, "before": before, "include": include}
        return self._list(RunStep, "threads", thread_id, "runs", run_id, "steps", query=query, options=options)

    async def retrieve(
        self,
        step_id: str,
        *,
        thread_id: str,
        run_id: str,
        include: Sequence[str] | None = None,
        **options: Unpack[CallOptions],
    ) -> RunStep:
        """Fetch a step. Safe to cancel.

        Args:
            include: As in `list`.

        Raises:
            APIError: There is no such step, or the server did not answer.
        """
        segments = ("threads", thread_id, "runs", run_id, "steps", step_id)
        return await self._ask(RunStep, "GET", *segments, query={"include": include}, options=options)
