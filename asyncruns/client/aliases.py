"""The same resources under the names that they have in the clients openai and azure-ai-agents."""

from __future__ import annotations

from typing import TypeVar

from asyncruns.resources.assistants import Assistants
from asyncruns.resources.messages import Messages
from asyncruns.resources.runs import Runs
from asyncruns.resources.steps import Steps
from asyncruns.resources.threads import Threads

C = TypeVar("C", bound="OtherNames")


class OtherNames:
    """Further names for the resources of a client."""

    assistants: Assistants
    threads: Threads

    @property
    def beta(self: C) -> C:
        """The client itself, so that `client.beta.threads` and `client.beta.assistants` work as in openai."""
        return self

    @property
    def messages(self) -> Messages:
        """`client.threads.messages`, under the name that it has in azure-ai-agents."""
        return self.threads.messages

    @property
    def runs(self) -> Runs:
        """`client.threads.runs`, under the name that it has in azure-ai-agents."""
        return self.threads.runs

    @property
    def run_steps(self) -> Steps:
        """`client.threads.runs.steps`, under the name that it has in azure-ai-agents."""
        return self.threads.runs.steps
