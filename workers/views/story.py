"""What a command does, in short, for people: programs that run, files written, what failed, connections, exits.

TIME     COMM            PID      ran       ls -l /tmp
                                  wrote     /tmp/x
                                  failed    /etc/shadow: EACCES
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from headrace.bpf.tables.catalogue import Event
from headrace.bpf.tables.reads import Argument
from headrace.config.outputs import STORY
from headrace.config.printable import CUT, quoted
from headrace.workers.decode.flags import error_name
from headrace.workers.views.style import RowMarks, Value
from headrace.workers.views.table import RED, RESET, TableStyle

CORE_DUMPED = 0x80


class StoryStyle(TableStyle):
    """Pieces of a line. Other events than those of STORY are shown as a table shows them."""

    def who(self, context: Any, cpu: int) -> str:
        return f"{context['tgid']:>7} {quoted(bytes(context['comm']))[:15]:<15} "

    def event(self, event: Event, flags: int, marks: RowMarks, retval: int, arguments: int) -> str:
        if event.name not in STORY:
            return f"{event.name} "
        verb, error = STORY[event.name][0], error_name(retval)
        if error and event.name != "security_socket_connect":
            verb = "failed"
        elif error and error != "EINPROGRESS":
            verb = "refused"
        shown = f"{verb:<9} "
        if self._colour and verb in ("failed", "refused"):
            shown = f"{RED}{shown}{RESET}"
        return shown + (f"{error}: " if verb in ("failed", "refused") else "")

    def order(self, event: Event) -> Sequence[int]:
        index = event.index(STORY[event.name][1]) if event.name in STORY else None
        return super().order(event) if index is None else (index,)

    def argument(self, event: Event, argument: Argument, position: int, value: Value) -> str:
        if event.name not in STORY:
            return super().argument(event, argument, position, value)
        text = f"<{value.reason}>" if value.reason else self._said(event, value.shown)
        return text + (CUT if value.cut else "")

    def _said(self, event: Event, value: object) -> str:
        if isinstance(value, list):
            return " ".join(map(quoted, value))
        if isinstance(value, dict):
            host = value.get("sin_addr") or value.get("sin6_addr") or value.get("sun_path") or value.get("sa_family")
            port = value.get("sin_port") or value.get("sin6_port")
            return quoted(f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" if port else str(host))
        if event.name == "sched_process_exit":
            return self._ended(int(str(value)))
        return quoted(value) if isinstance(value, str | bytes) else str(value)

    def _ended(self, status: int) -> str:
        """A wait(2) status in words."""
        number = status & 0x7F
        if not number:
            return f"with status {status >> 8 & 0xFF}"
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        text = f"killed by {name}" + (", core dumped" if status & CORE_DUMPED else "")
        return f"{RED}{text}{RESET}" if self._colour else text
