"""Signatures in Python read as a worker reads them: unprivileged and confined, in a process of its own. What does not
bear that is refused, and is not run anywhere else.
"""

from __future__ import annotations

import os
import selectors
import signal
import traceback
from pathlib import Path

from config.rules import RuleError
from pipeline import confine, privilege
from workers.detect.code import defined

DEADLINE_S = 10.0
TEXT_BYTES = 4096


def refusal(path: Path, source: str, deadline_s: float = DEADLINE_S) -> str:
    """Why a worker would not read a file of signatures; "" if it would."""
    confine.library()  # its bindings may stand where a stage may not look
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        _read(path, source, write_end)
    os.close(write_end)
    with selectors.DefaultSelector() as selector:
        selector.register(read_end, selectors.EVENT_READ)
        said = os.read(read_end, TEXT_BYTES).decode() if selector.select(deadline_s) else "its code did not end"
    os.close(read_end)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    why = said or (f"its code ended the process (status {os.waitstatus_to_exitcode(status)})" if status else "")
    return f"in a worker: {why}" if why else ""


def _read(path: Path, source: str, said: int) -> None:
    """In the child, which ends here."""
    why = ""
    try:
        os.setsid()
        privilege.drop()
        confine.confine("worker")
        defined(str(path), source)
    except BaseException as error:  # whatever the code does
        why = error.why if isinstance(error, RuleError) else traceback.format_exception_only(error)[-1].strip()
    os.write(said, why.encode("utf-8", "backslashreplace")[:TEXT_BYTES])
    os._exit(0)
