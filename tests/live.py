"""Running headrace for real: the fixtures' building blocks for tests/kernel and tests/process.

Every run limits its scope to processes that the test started.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from headrace.bpf.host.btf import Btf, BtfError
from headrace.pipeline.command import cli

HEADRACE = str(Path(sys.executable).with_name("headrace"))
DEADLINE_S = float(os.environ.get("HEADRACE_TESTS_DEADLINE", "90"))
"""Of a run; guests without a processor of their own need more."""
Event = dict[str, Any]


def kernel_has(helper: str) -> bool:
    """Whether programs can call it on this kernel."""
    try:
        Btf.of_kernel().enumerator("bpf_func_id", f"BPF_FUNC_{helper}")
    except BtfError:
        return False
    return True


NEEDS_LOOPS = pytest.mark.skipif(
    not kernel_has("loop"), reason="no bpf_loop (Linux 5.17): paths and vectors have limits here, names are lexical"
)


@dataclass
class Traced:
    """What a finished run left."""

    events: list[Event]
    ledger: dict[str, Any]
    status: int
    errors: str
    out: str

    def of(self, comm: str, name: str | None = None) -> list[Event]:
        """Events of tasks of that name, in order."""
        return [e for e in self.events if e["processName"] == comm and name in (None, e["eventName"])]


def arguments(event: Event) -> dict[str, Any]:
    """Argument values by name."""
    return {a["name"]: a["value"] for a in event["args"]}


def details(event: Event, name: str) -> dict[str, Any]:
    """One argument whole: value, raw, reason, cut."""
    return next(a for a in event["args"] if a["name"] == name)


def trace(command: Sequence[str], *options: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Traced:
    """`headrace run OPTIONS -o json:FILE -- COMMAND`, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        events, ledger = Path(folder, "events"), Path(folder, "ledger")
        line = [HEADRACE, "run", *options, "-o", f"json:{events}", "--ledger", str(ledger), "--", *command]
        done = subprocess.run(
            line,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            env=env,
        )
        if not ledger.exists():
            raise AssertionError(f"headrace ended with {done.returncode}: {done.stderr}")
        lines = events.read_text().splitlines()
        return Traced(
            [json.loads(text) for text in lines],
            json.loads(ledger.read_text()),
            done.returncode,
            done.stderr,
            done.stdout,
        )


def compile_c(source: Path, into: Path, *flags: str) -> Path:
    """A test program, compiled."""
    subprocess.run(["cc", "-O1", "-w", "-pthread", *flags, str(source), "-o", str(into)], check=True)
    return into


def headrace(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Any headrace command, to its end."""
    return subprocess.run(
        [HEADRACE, *args],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
        **{"stdin": subprocess.DEVNULL} | options,
    )


def in_process(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same in this process, which spares its start: for what starts no other, as what is refused."""
    with contextlib.chdir(cwd or Path.cwd()):
        done = CliRunner().invoke(cli.main, list(args), prog_name="headrace")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([HEADRACE, *args], done.exit_code, done.stdout, done.stderr)


def start_load(
    binary: Path, mode: str, count: int, threads: int = 1, cpu: int = -1, rate: int = 0
) -> subprocess.Popen[str]:
    """The benchmarks' load: its process is known, and waits for a byte before its first call. `count` 0: until its
    standard input is closed; `rate`: calls a second, 0 as many as it can.
    """
    process = subprocess.Popen(
        [str(binary), mode, *map(str, (count, cpu, threads, rate))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    process.stderr.readline()
    return process


def let_go(load: subprocess.Popen[str]) -> None:
    """Let it make its calls; its standard input stays open."""
    assert load.stdin is not None
    load.stdin.write("x")
    load.stdin.flush()


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            found.extend(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    return found[1:]


def _is_command(pid: int) -> bool:
    """Not one of headrace's own helpers."""
    return b"multiprocessing" not in Path(f"/proc/{pid}/cmdline").read_bytes()


class Running:
    """A `headrace run` that goes on, ready when made: everything is attached."""

    alive: ClassVar[set[Running]] = set()
    """Those that were not ended yet."""

    def __init__(self, *options: str, program: Sequence[str] = (HEADRACE,), **popen: Any) -> None:
        self._folder = tempfile.mkdtemp()
        self.ledger_path = Path(self._folder, "ledger")
        read_end, write_end = os.pipe()
        line = [*program, "run", "--ready-fd", str(write_end), "--ledger", str(self.ledger_path), *options]
        self.process = subprocess.Popen(line, pass_fds=(write_end,), stderr=subprocess.PIPE, text=True, **popen)
        self.alive.add(self)
        os.close(write_end)
        self.ready = os.read(read_end, 1) == b"\n"
        os.close(read_end)

    def stages(self) -> dict[str, int]:
        """Process ids by name: nursery, publisher, worker-0, ..., reader."""
        found = {}
        for pid in descendants(self.process.pid):
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                if name.startswith("hr-"):
                    found[name.removeprefix("hr-")] = pid
        return found

    def stage(self, name: str) -> int:
        """Process id of one, which may be about to take its name."""
        wait_for(lambda: name in self.stages(), name)
        return self.stages()[name]

    def command(self) -> int:
        """Process id of the command."""
        stages = self.stages().values()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(pid for pid in map(int, children) if pid not in stages and _is_command(pid))

    def segments(self) -> set[str]:
        """Names of the shared-memory segments that the supervisor has mapped."""
        maps = Path(f"/proc/{self.process.pid}/maps").read_text().splitlines()
        return {line.split("/dev/shm/")[1].split()[0] for line in maps if "/dev/shm/" in line}

    def has_full_ring(self, size: int) -> bool:
        """Whether a ring of results, of so many bytes, is more than half full: its producer waits, or will."""
        return any(_is_full(Path("/dev/shm", name).read_bytes(), size) for name in self.segments())

    def kill(self) -> None:
        """kill -9 of the supervisor; whatever still holds its standard error after a while is killed as well."""
        self.alive.discard(self)
        started = descendants(self.process.pid)
        self.process.kill()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            for pid in started:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.process.communicate(timeout=10)
        shutil.rmtree(self._folder)

    def stop(self) -> dict[str, Any]:
        """Ctrl-C: its ledger, which must be sound."""
        self.process.send_signal(signal.SIGINT)
        status, ledger, errors = self.end()
        assert (status, ledger["balanced"], ledger["lost"], ledger["dropped"]) == (0, True, 0, 0), errors
        return ledger

    def end(self, deadline_s: float = DEADLINE_S) -> tuple[int, dict[str, Any], str]:
        """(status, ledger, standard error) once it has ended."""
        try:
            _, errors = self.process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self.alive.discard(self)
        ledger = json.loads(self.ledger_path.read_text()) if self.ledger_path.exists() else {}
        shutil.rmtree(self._folder)
        return self.process.returncode, ledger, errors


def _is_full(segment: bytes, size: int) -> bool:
    head, tail = (int.from_bytes(segment[at : at + 8], "little") for at in (0, 64))
    return len(segment) in range(size, size + 4096) and size // 2 < head - tail <= size


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = 30) -> None:
    """Poll until it holds; AssertionError with `what` at the deadline."""
    until = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"waited {deadline_s} s for {what}")
        time.sleep(0.005)
