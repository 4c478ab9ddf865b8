"""Names of the host's users, without waiting for anybody: from /etc/passwd alone.

Directory services may hang, and a worker must not: what only they know is unknown here. In a container, a number is
another user's, by a database of the container's own.
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
"""Between two looks whether the files have changed."""
LOCAL = frozenset({"files", "compat", "systemd", "db"})
"""Sources of names (nsswitch.conf) that are files, or made up for what has no name in one."""


class Names(NamedTuple):
    """Names of users by number; `others`: what has none may be known elsewhere."""

    names: dict[int, str]
    others: bool


UNKNOWN = Names({}, True)
"""Nothing is known of the users of a host."""


class Users:
    """Of one worker."""

    def __init__(self, passwd: Path = Path("/etc/passwd"), sources: Path = Path("/etc/nsswitch.conf")) -> None:
        self._passwd, self._sources = passwd, sources
        self._names: dict[int, str] = {}
        self._others = False
        self._version: tuple[int, ...] = ()
        self._looked = -LOOK_S

    def name(self, uid: int) -> str | None:
        """A user of the host: its name, its number if it has none, and None if only a directory service knows."""
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
        """These are those of another host, and do not change."""
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
                    # the first of a number counts, as for getpwuid(3)
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
"""This process's."""


def fix_users(given: tuple[dict[int, str], bool] | None) -> None:
    """Take the names of the host that was recorded; None: those of this one."""
    if given is not None:
        USERS.fix(Names(*given))


@contextlib.contextmanager
def users_of(names: Names) -> Iterator[None]:
    """Within it, the names are those of another host: for what reads recordings in a process of its user's."""
    before = dict(vars(USERS))
    USERS.fix(names)
    try:
        yield
    finally:
        vars(USERS).update(before)


def user_name(uid: int, container: Any) -> str | None:
    """Of a process of the host; None in a container, whose bytes of an id are given, and where it is not known."""
    return None if any(container) else USERS.name(uid)
