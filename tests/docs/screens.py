"""Captures what headrace shows on a terminal into docs/reference/screens.md.

    python -m tests.docs.screens

Needs root, like any run, and the package pyte, which plays the terminal: `pip install pyte`. The page is made for a
release and looked at by a person; nothing compares it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import tempfile
import termios
import time
from pathlib import Path

import pyte

from tests.live import HEADRACE

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "screens.md"
DEADLINE_S = 90
WORK = "cat /nono; echo text > written; cp /usr/bin/true .tool; for i in 1 2 3; do ./.tool; done"
EVENTS = "sched_process_exec,sched_process_exit,openat.args.pathname=/etc/*,openat.args.pathname=*nono"
HEAD = """\
# Screens

<!-- Captured by `python -m tests.docs.screens`. Do not edit. -->

What headrace shows on a terminal, captured from one. Colours are not shown here.
"""
SCREENS = (
    ("A command's story, at 80 columns", 80, 60, ("run", "--", "bash", "-c", WORK), 0.0),
    ("Events as a table, at 80 columns", 80, 60, ("run", "-q", "-e", EVENTS, "--", "bash", "-c", WORK), 0.0),
    ("The same at 200 columns", 200, 60, ("run", "-q", "-e", EVENTS, "--", "bash", "-c", WORK), 0.0),
    ("Findings, at 80 columns", 80, 40, ("run", "-q", "--findings", "table:-", "--", "bash", "-c", WORK), 0.0),
    ("Findings, at 200 columns", 200, 40, ("run", "-q", "--findings", "table:-", "--", "bash", "-c", WORK), 0.0),
    ("A summary", 80, 60, ("summary", "--", "bash", "-c", WORK), 0.0),
    ("top, at 80x24", 80, 24, ("top", "--", "bash", "-c", "while :; do ls / >/dev/null; cat /nono; done"), 15.0),
)
"""Title, columns, lines, command, and the seconds after which it is captured and ended; 0: at its end."""


def capture(columns: int, lines: int, arguments: tuple[str, ...], after_s: float, folder: str) -> list[str]:
    """The lines on a terminal of that size, without blank ones at the end."""
    screen = pyte.Screen(columns, lines)
    terminal = pyte.ByteStream(screen)
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    env |= {"TERM": "xterm-256color"}
    running = subprocess.Popen([HEADRACE, *arguments], stdin=its, stdout=its, stderr=its, cwd=folder, env=env)
    os.close(its)
    os.set_blocking(mine, False)
    until, capture_at = time.monotonic() + DEADLINE_S, time.monotonic() + (after_s or DEADLINE_S)
    shown: list[str] = []
    while time.monotonic() < until:
        with contextlib.suppress(BlockingIOError, OSError):
            terminal.feed(os.read(mine, 65536))
        if after_s and not shown and time.monotonic() > capture_at:
            shown = list(screen.display)
            os.write(mine, b"q")
        if running.poll() is not None:
            break
        time.sleep(0.01)
    with contextlib.suppress(BlockingIOError, OSError):
        while part := os.read(mine, 65536):
            terminal.feed(part)
    running.kill()
    running.wait()
    os.close(mine)
    found = [line.rstrip() for line in shown or screen.display]
    while found and not found[-1]:
        found.pop()
    return found


def main() -> None:
    """Write the page."""
    parts = [HEAD]
    for title, columns, lines, arguments, after_s in SCREENS:
        with tempfile.TemporaryDirectory(prefix="me") as folder:
            shown = capture(columns, lines, arguments, after_s, folder)
            shown = [line.replace(folder, "/home/me") for line in shown]
        words = " ".join(f"'{word}'" if " " in word or "*" in word else word for word in arguments)
        parts.append("\n".join((f"## {title}", "", "```", f"$ headrace {words}", *shown, "```", "")))
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
