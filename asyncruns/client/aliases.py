"""Where users of other clients look for what this one has: the same objects, by their names."""

from __future__ import annotations

from typing import TypeVar

from asyncruns.resources.assistants import Assistants
from asyncruns.resources.messages import Messages
from asyncruns.resources.runs import Runs
from asyncruns.resources.steps import Steps
from asyncruns.resources.threads import Threads

C = TypeVar("C", bound="OtherNames")


class OtherNames:
    """The names, on top of what the client calls these things itself."""

    assistants: Assistants
    threads: Threads

    @property
    def beta(self: C) -> C:
        """The client itself: the official one has `client.beta.threads` and `client.beta.assistants`."""
        return self

    @property
    def messages(self) -> Messages:
        """`client.threads.messages`, where azure-ai-agents has it."""
        return self.threads.messages

    @property
    def runs(self) -> Runs:
        """`client.threads.runs`, where azure-ai-agents has it."""
        return self.threads.runs

    @property
    def run_steps(self) -> Steps:
        """`client.threads.runs.steps`, where azure-ai-agents has it."""
        return self.threads.runs.steps
