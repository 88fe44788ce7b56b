"""How processes of one machine see whether another one lives: each holds a lock of the operating system for its life.

A lock ends with its process, however that ends, so that what the process owned is free at once. Each owner locks a file
of its own, whose name no other will ever use. Whether it lives is tried with a lock of one byte, a random one, so that
processes that try at once do not take each other for the owner. Two properties of POSIX record locks decide what
happens here: a forked child does not inherit them, which is what is wanted; and a process loses its lock when it closes
*any* descriptor of the file, so that a process never opens the file of an owner that lives in itself.

All functions block. `OwnerLock` and `sweep` are called in a transaction of the database that writes, so that no two
processes run them at once.
"""

from __future__ import annotations

import os
import secrets
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

_OURS: Final[set[tuple[int, str]]] = set()  # with the process, since a forked child has a copy of this
_BYTES: Final = 1 << 62  # of a file, as far as locks go


def is_supported() -> bool:
    """Return whether this operating system has such locks."""
    return sys.platform != "win32"


class OwnerLock:
    """Holds the lock of one owner until it is released.

    Args:
        folder: Where the files of all owners are; created if missing.

    Raises:
        OSError: The file cannot be created or locked.
    """

    def __init__(self, folder: Path) -> None:
        self.owner: str = uuid.uuid4().hex
        self._path = folder / self.owner
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(self._file, f"{_process(os.getpid())}\n".encode())
        except OSError:
            os.close(self._file)
            raise
        _OURS.add((os.getpid(), self.owner))

    def release(self) -> None:
        """Release the lock and delete its file. Never raises."""
        _OURS.discard((os.getpid(), self.owner))
        with suppress(OSError):
            self._path.unlink()
        with suppress(OSError):
            os.close(self._file)


def lives(folder: Path, owner: str) -> bool:
    """Return whether an owner lives, in this process or in another one.

    Raises:
        OSError: The file of its lock cannot be opened.
    """
    if (os.getpid(), owner) in _OURS:
        return True
    try:
        file = os.open(folder / owner, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, secrets.randbelow(_BYTES))
    except OSError:  # EACCES or EAGAIN
        return True
    finally:
        os.close(file)
    return False


def words_of(folder: Path, owner: str) -> str:
    """Return who an owner is, in words for people. Never raises."""
    if (os.getpid(), owner) in _OURS:
        return _process(os.getpid())
    with suppress(OSError, UnicodeDecodeError):
        return (folder / owner).read_text().strip() or "another process"
    return "another process"


def sweep(folder: Path) -> None:
    """Delete the files of dead owners. Never raises."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            if not lives(folder, path.name):
                path.unlink(missing_ok=True)


def _process(pid: int) -> str:
    return f"process {pid}"
