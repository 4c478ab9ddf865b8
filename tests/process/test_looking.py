"""`headrace summary`, `suggest` and `top`, for real."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from headrace.pipeline.reports.feed import Feed
from tests.live import HEADRACE, wait_for

pytestmark = pytest.mark.kernel
CALLS = "import os; [os.getppid() for _ in range(3000)]"
READS = "for i in 1 2 3 4 5 6 7 8; do cat /proc/sys/kernel/randomize_va_space; done"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADRACE, *arguments], capture_output=True, text=True, check=False, timeout=90)


def test_a_summary_counts_calls_errors_and_time() -> None:
    script = f"{CALLS}\nimport time; time.sleep(0.2)\ntry: os.close(999)\nexcept OSError: pass"
    done = run("summary", "-o", "json", "--", sys.executable, "-S", "-c", script)
    assert done.returncode == 0
    shown = json.loads(done.stderr.splitlines()[-1])
    assert shown["lost"] == 0
    assert shown["call"]["getppid"]["calls"] == 3000
    assert shown["call"]["close"]["errors"] >= 1
    slept = shown["call"]["clock_nanosleep"]
    assert 0.2e9 <= slept["time_ns"] / slept["calls"] < 2e9
    (process,) = (key for key in shown["process"] if key.startswith("python"))
    assert shown["process"][process]["calls"] >= 3000


def test_a_summary_is_a_table_like_that_of_strace() -> None:
    done = run("summary", "--sort", "calls", "--", "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stdout) == (3, "out\n")
    lines = done.stderr.splitlines()
    assert lines[0].split() == ["%", "time", "seconds", "usecs/call", "calls", "errors", "call"]
    counts = [int(line[30:41]) for line in lines[2:-2]]
    assert counts == sorted(counts, reverse=True)
    assert lines[-1].split()[-1] == "total"
    assert int(lines[-1].split()[3]) == sum(counts)


def test_a_summary_of_nothing_is_an_error() -> None:
    done = run("summary")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Give a COMMAND" in done.stderr


def test_suggestions_remove_what_repeats_and_nothing_else(tmp_path: Path) -> None:
    findings, exceptions = tmp_path / "findings", tmp_path / "exceptions.yaml"
    run("run", "-q", "--fold", "0", "--findings", f"json:{findings}", "--", "sh", "-c", READS)
    done = run("suggest", str(findings), "--append", str(exceptions))
    assert done.returncode == 0
    assert "TRC-109 ASLR is inspected: removes 8 of 8; hides none of its own examples" in done.stdout
    left = tmp_path / "left"
    again = ("--exceptions", str(exceptions), "--findings", f"json:{left}", "--fold", "0")
    run("run", "-q", *again, "--", "sh", "-c", f"{READS}; head -c1 /proc/sys/kernel/randomize_va_space")
    names = [json.loads(line)["process"]["name"] for line in left.read_text().splitlines()]
    assert names == ["head"]


def test_suggestions_come_from_recordings_and_commands(tmp_path: Path) -> None:
    recording = tmp_path / "run.hrc"
    run("run", "-q", "--record", str(recording), "--findings", "none", "--", "sh", "-c", READS)
    (one,) = json.loads(run("suggest", "-o", "json", str(recording)).stdout)
    assert (one["id"], one["removes"]) == ("TRC-109", 8)
    (same,) = json.loads(run("suggest", "-o", "json", "--", "sh", "-c", f"{READS} >/dev/null").stdout)
    assert same["unless"] == one["unless"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("suggest",), "Give a FILE, or -- COMMAND"),
        (("suggest", "/nonexistent"), "/nonexistent: No such file"),
        (("suggest", "/dev/null", "--append", "/nonexistent/x"), "/nonexistent/x: No such file"),
        (("top",), "standard output is no terminal"),
    ],
)
def test_what_they_cannot_do_is_said(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode in (2, 74)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def line(event: str, process: str, pid: int, container: str = "") -> bytes:
    seen = {"eventName": event, "processName": process, "hostProcessId": pid}
    return json.dumps(seen | {"containerId": container, "containerName": ""}).encode()


def test_the_screen_shows_rates_and_takes_keys(tmp_path: Path) -> None:
    pytest.importorskip("textual")
    from textual.widgets import DataTable, Static

    from headrace.pipeline.reports.top_screen import TopScreen

    feed = Feed()
    for _ in range(7):
        feed.add(line("openat", "cat", 1))
    feed.add(line("close", "[red]x[/]", 2, "c" * 64))
    feed.found(b'{"title": "T", "severity": "high", "signatureID": "TRC-1", "process": {"name": "a\\u001b", "pid": 3}}')

    async def look() -> None:
        screen = TopScreen(feed, tmp_path / "none.sock")
        async with screen.run_test(size=(80, 24)) as pilot:
            rows = screen.query_one("#rows", DataTable)

            async def first() -> list[str]:
                screen.look()
                await pilot.pause()
                return [str(cell).strip() for cell in rows.get_row_at(0)]

            assert (await first())[0] == "openat"
            assert (await first())[2] == "7"
            await pilot.press("p", "t")
            assert (await first())[0] == "cat[1]"
            await pilot.press("c")
            assert [str(rows.get_row_at(i)[0]) for i in range(rows.row_count)] == ["(host)", "c" * 12]
            await pilot.press("p", "slash", "x", "enter")
            assert (await first())[0] == "[red]x[/][2]"
            assert rows.row_count == 1
            findings = str(screen.query_one("#findings", Static).render())
            assert "high     TRC-1 T  a\\x1b[3]" in findings
            await pilot.press("q")

    asyncio.run(look())


def test_top_runs_and_ends_with_a_key() -> None:
    pytest.importorskip("textual")
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color"}
    work = "while :; do ls / >/dev/null; done"
    with subprocess.Popen([HEADRACE, "top", "--", "sh", "-c", work], stdin=its, stdout=its, stderr=its, env=env) as top:
        os.close(its)
        os.set_blocking(mine, False)
        shown = bytearray()

        def has(text: bytes) -> bool:
            with contextlib.suppress(OSError):
                shown.extend(os.read(mine, 65536))
            return text in shown

        wait_for(lambda: has(b"openat") or has(b"execve") or has(b"sched_process"), "events on the screen")
        os.write(mine, b"q")
        wait_for(lambda: has(b"\0never") or top.poll() is not None, "the end")
        assert top.returncode == 0
    os.close(mine)
