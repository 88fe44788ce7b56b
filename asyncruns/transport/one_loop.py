"""The one event loop in which the connections of a client may be used."""

from __future__ import annotations

import asyncio

from asyncruns.errors import ConfigurationError


class OneLoop:
    """Checks that it is used in one event loop only, that of its first use, and not after closing."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def check(self) -> asyncio.AbstractEventLoop:
        """Return the loop.

        Raises:
            ConfigurationError: It is closed, or belongs to another loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._is_closed:
            self.check_open()
            if self._loop is not None:
                raise ConfigurationError("This client belongs to another event loop; make one for each loop")
            self._loop = loop
        return loop

    def check_open(self) -> None:
        """Raise a `ConfigurationError` if it is closed."""
        if self._is_closed:
            raise ConfigurationError("The client is closed; make a new one")

    def close(self) -> None:
        """Make every later check raise."""
        self._is_closed = True
