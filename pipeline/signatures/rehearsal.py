"""Signatures in Python read as a worker reads them: unprivileged and confined, in a process of its own. What does not
bear that is refused, and is not run anywhere else.
"""

from __future__ import annotations

import os
import selectors
import signal
import traceback
from pathlib import Path

from headrace.config.rules import RuleError
from headrace.pipeline.process import confine, privilege
from headrace.workers.detect.code.bounds import defined

DEADLINE_S = 10.0
TEXT_BYTES, LINE_DIGITS = 4096, 9


def refusal(path: Path, source: str, deadline_s: float = DEADLINE_S) -> RuleError | None:
    """Why a worker would not read a file of signatures; None if it would."""
    confine.library()  # its bindings may stand where a stage may not look
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        _read(path, source, write_end)
    os.close(write_end)
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        in_time = selector.select(deadline_s)
        said = os.read(read_end, TEXT_BYTES).decode(errors="replace") if in_time else "0 its code did not end"
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status and not said:
        said = f"0 its code ended the process (status {os.waitstatus_to_exitcode(status)})"
    line, _, why = said.partition(" ")
    # the code may have written there, too
    number = int(line) if line.isascii() and line.isdigit() and len(line) < LINE_DIGITS else 0
    return RuleError(str(path), number, "", f"in a worker: {why or said}") if said else None


def _read(path: Path, source: str, said: int) -> None:
    """In the child, which ends here."""
    why, line = "", 0
    try:
        os.setsid()
        privilege.close_all_but(said)
        privilege.drop()
        confine.confine("worker")
        defined(str(path), source)
    except RuleError as error:
        why, line = error.why, error.line
    except BaseException as error:  # whatever the code does
        why = traceback.format_exception_only(error)[-1].strip()
    if why:
        os.write(said, f"{line} {why}".encode("utf-8", "backslashreplace")[:TEXT_BYTES])
    os._exit(0)
