"""User and group names from the host's databases (files and other NSS sources), for the enricher.

They are in the same table as containers, under separate keys: a word and a number. An enricher thread performs the
lookups as it does for a runtime, because NSS may query a directory service that hangs. The databases inside containers
are not read.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator

from headrace.config.runtimes import Info
from headrace.pipeline.containers.enrichment import ACCOUNT, USER
from headrace.pipeline.containers.runtimes import Happened, Unavailable, silence, word


class Accounts:
    """Account databases with the interface of a Runtime (pipeline/containers/runtimes.py)."""

    def look(self, container: str) -> Info | None:
        """Look up the name for a key in hex digits (ACCOUNT in pipeline/containers/enrichment.py).

        Returns None if there is no such user or group. Raises Unavailable if the lookup fails.
        """
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
