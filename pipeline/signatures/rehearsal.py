"""Loads Python signatures on trial, as a worker does: in a separate, unprivileged and confined process. A file that
fails there is refused and is not executed anywhere else.
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
LOADED = "loaded"
"""What the child says if nothing went wrong. Code that ends it before says nothing."""


def refusal(path: Path, source: str, deadline_s: float = DEADLINE_S) -> RuleError | None:
    """Why a worker would not load a file of signatures; None if it would. Waits at most `deadline_s` seconds."""
    confine.library()  # load it now: a stage may not be able to read its folder
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
    if said == LOADED:
        return None
    if not said:
        said = f"0 its code ended the process (status {os.waitstatus_to_exitcode(status)})"
    line, _, why = said.partition(" ")
    # the code may have written to the pipe as well
    number = int(line) if line.isascii() and line.isdigit() and len(line) < LINE_DIGITS else 0
    return RuleError(str(path), number, "", f"in a worker: {why or said}")


def _read(path: Path, source: str, said: int) -> None:
    """Load the file in the child process, report an error through `said`, and exit."""
    why, line = "", 0
    try:
        os.setsid()
        privilege.close_all_but(said)
        privilege.drop()
        confine.confine("worker")
        defined(str(path), source)
    except RuleError as error:
        why, line = error.why, error.line
    except BaseException as error:  # the code may raise anything
        why = traceback.format_exception_only(error)[-1].strip()
    os.write(said, f"{line} {why}".encode("utf-8", "backslashreplace")[:TEXT_BYTES] if why else LOADED.encode())
    os._exit(0)
