"""Names of the host's users, read only from /etc/passwd.

Directory services may hang, and a worker must not. Users that only a directory service knows are therefore unknown.
In a container, a number belongs to the container's own user database.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

LOOK_S = 1.0
"""Seconds between checks whether the files have changed."""
LOCAL = frozenset({"files", "compat", "systemd", "db"})
"""Sources in nsswitch.conf that are local or only synthesize names that files lack."""


class Names(NamedTuple):
    """User names by number. `others`: a number that is missing may have a name elsewhere."""

    names: dict[int, str]
    others: bool


UNKNOWN = Names({}, True)
"""No user of the host is known."""


class Users:
    """User names of one process."""

    def __init__(self, passwd: Path = Path("/etc/passwd"), sources: Path = Path("/etc/nsswitch.conf")) -> None:
        self._passwd, self._sources = passwd, sources
        self._names: dict[int, str] = {}
        self._others = False
        self._version: tuple[int, ...] = ()
        self._looked = -LOOK_S

    def name(self, uid: int) -> str | None:
        """Name of a user of the host; the number if it has no name; None if only a directory service may know it."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._read()
        return self._names.get(uid) or (None if self._others else str(uid))

    def known(self) -> Names:
        """All names, for a recording."""
        self._read()
        return Names(self._names, self._others)

    def fix(self, names: Names) -> None:
        """Use the names of another host from now on."""
        self._names, self._others = dict(names.names), names.others
        self._looked = math.inf

    def _read(self) -> None:
        version = tuple(_changed_ns(path) for path in (self._passwd, self._sources))
        if version == self._version:
            return
        self._version, self._names, self._others = version, {}, False
        with contextlib.suppress(OSError):
            for line in self._passwd.read_text(errors="surrogateescape").split("\n"):
                fields = line.split(":")
                if len(fields) > 2 and fields[2].isdecimal():
                    # the first entry of a number counts, as for getpwuid(3)
                    self._names.setdefault(int(fields[2]), fields[0])
        with contextlib.suppress(OSError):
            for line in self._sources.read_text(errors="replace").split("\n"):
                key, colon, sources = line.partition("#")[0].partition(":")
                if colon and key.strip() == "passwd":
                    self._others = any(w not in LOCAL for w in sources.split() if not w.startswith("["))


def _changed_ns(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime_ns
    return 0


USERS = Users()
"""User names of this process."""


def fix_users(given: tuple[dict[int, str], bool] | None) -> None:
    """Use the names of the recorded host; None: keep those of this host."""
    if given is not None:
        USERS.fix(Names(*given))


@contextlib.contextmanager
def users_of(names: Names) -> Iterator[None]:
    """Context manager that uses the names of another host. For readers of recordings in a user's process."""
    before = dict(vars(USERS))
    USERS.fix(names)
    try:
        yield
    finally:
        vars(USERS).update(before)


def user_name(uid: int, container: Any) -> str | None:
    """Name of a host user; None if unknown or in a container (`container`: the bytes of the id)."""
    return None if any(container) else USERS.name(uid)
