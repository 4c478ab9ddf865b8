"""Names of users and groups by the host's databases (files, and whatever else NSS is told to ask), for the enricher.

They stand in the table beside containers, under keys of their own: a word and a number. NSS may ask a directory that
hangs: so this is asked by a thread, like a runtime. Containers have other databases, which are not asked for.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator

from headrace.config.runtimes import Info
from headrace.pipeline.containers.enrichment import ACCOUNT, USER
from headrace.pipeline.containers.runtimes import Happened, Unavailable, silence, word


class Accounts:
    """Asked like a runtime (pipeline/containers/runtimes.py)."""

    def look(self, container: str) -> Info | None:
        """The name behind a key (pipeline/containers/enrichment.py, ACCOUNT), which is given as digits."""
        kind, number, _ = ACCOUNT.unpack(bytes.fromhex(container))
        try:
            if kind == USER:
                return Info(name=word(pwd.getpwuid(number).pw_name))
            return Info(name=word(grp.getgrgid(number).gr_name))
        except (KeyError, OverflowError):
            return None
        except OSError as error:
            raise Unavailable("no answer") from error

    def events(self) -> Iterator[Happened]:
        return silence()
