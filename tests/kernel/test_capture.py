"""`--capture`: artifacts of a traced program, on the live kernel."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live import HEADRACE, Running, Traced, arguments, trace, wait_for

pytestmark = pytest.mark.kernel
WORK = """
import ctypes, glob, mmap, os, shutil, sys, time
from headrace.bpf import syscall
folder, index = sys.argv[1:]

def wait_for(is_ready):
    end = time.monotonic() + 60
    while not is_ready() and time.monotonic() < end:
        time.sleep(0.01)

def is_open_elsewhere(target):
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) == target and int(link.split("/")[2]) != os.getpid():
                return True
        except OSError:
            pass

def is_noted(kind):
    return os.path.exists(index) and kind in open(index).read()

shutil.copy("/bin/true", folder + "/own")
os.spawnv(os.P_WAIT, folder + "/own", ["own"])
with open(folder + "/text", "w") as file:
    file.write("text")
with open(folder + "/hidden", "wb", buffering=0) as file:
    os.unlink(folder + "/hidden")
    wait_for(lambda: is_open_elsewhere(folder + "/hidden (deleted)"))
    file.write(b"hidden")
with open(folder + "/library", "wb") as file:
    file.write(b"\\x7fELF" + b"x" * 9)
region = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=3)
region.write(b"\\x90" * 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(region))
ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), 4096, 5)
program = syscall.load_program("kept", syscall.RAW_TRACEPOINT, bytes.fromhex("b700000000000000" "9500000000000000"))
wait_for(lambda: is_noted('"mem"') and is_noted('"bpf"'))
"""


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Traced, Path, Path]:
    folder, kept = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("kept") / "artifacts"
    wanted = ("--capture", f"exec,mem,bpf,write={folder}/*", "--capture-dir", str(kept))
    program = [sys.executable, "-c", WORK, str(folder), str(kept / "index.jsonl")]
    found = trace(program, "-e", "sched_process_exec", *wanted)
    assert (found.status, found.ledger["balanced"]) == (0, True), found.errors
    return found, folder, kept


def index(kept: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (kept / "index.jsonl").read_text().splitlines()]


def test_executables_are_kept_by_hash(captured: tuple[Traced, Path, Path]) -> None:
    _, folder, kept = captured
    found = {line["path"]: line for line in index(kept) if line["kind"] == "exec"}
    own = (folder / "own").read_bytes()
    assert found[f"{folder}/own"]["sha256"] == digest(own)
    assert (kept / "exec" / digest(own)).read_bytes() == own
    python = Path(sys.executable).resolve()
    assert found[str(python)]["sha256"] == digest(python.read_bytes())


def test_written_files_are_kept_also_deleted_ones(captured: tuple[Traced, Path, Path]) -> None:
    _, folder, kept = captured
    found = {line["path"].removeprefix(f"{folder}/"): line for line in index(kept) if line["kind"] == "write"}
    assert found["text"]["sha256"] == digest(b"text")
    assert found["hidden"]["sha256"] == digest(b"hidden")
    assert found["own"]["sha256"] == digest((folder / "own").read_bytes())
    assert {path.split("/")[0] for path in found} == {"own", "text", "hidden", "library"}


def test_regions_that_became_executable_are_kept(captured: tuple[Traced, Path, Path]) -> None:
    _, _, kept = captured
    assert (kept / "mem" / digest(b"\x90" * 4096)).stat().st_size == 4096


def test_bpf_programs_are_kept(captured: tuple[Traced, Path, Path]) -> None:
    _, _, kept = captured
    (line,) = (line for line in index(kept) if line["kind"] == "bpf")
    assert line["program"]["name"] == "kept"
    code = (kept / "bpf" / line["sha256"]).read_bytes()
    # r0 = 0; exit, as the verifier has left them
    assert code[-8:] == bytes.fromhex("9500000000000000")


def test_all_requests_have_an_outcome_and_outputs_show_what_was_asked(captured: tuple[Traced, Path, Path]) -> None:
    traced, _, kept = captured
    found = traced.ledger["artifacts"]
    assert found["waiting"] == found["dropped"] == 0
    assert found["stored"] == sum(len(os.listdir(kept / kind)) for kind in ("exec", "write", "mem", "bpf"))
    assert {event["eventName"] for event in traced.events} == {"sched_process_exec"}
    assert "artifacts: requested" in traced.errors
    assert all(arguments(event)["pathname"] for event in traced.events)


def test_files_belong_to_the_stages_and_nobody_else_reads_them(captured: tuple[Traced, Path, Path]) -> None:
    _, _, kept = captured
    modes = {path.stat().st_mode & 0o777 for path in kept.rglob("*") if path.is_file() and path.name != "index.jsonl"}
    assert modes == {0o400}
    assert kept.stat().st_mode & 0o777 == 0o700


def test_a_killed_collector_is_started_again(tmp_path: Path) -> None:
    kept, late = tmp_path / "artifacts", tmp_path / "late"
    go = tmp_path / "go"
    work = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.05)\n"
    work += f"open({str(late)!r}, 'w').write('late'); time.sleep(0.3)"
    options = ("-e", "exit", "-o", "none", "--capture", f"write={tmp_path}/late", "--capture-dir", str(kept))
    running = Running(*options, "--", sys.executable, "-S", "-c", work)
    assert running.ready, running.end()
    before = running.stages()["collector"]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: running.stages().get("collector", before) != before, "the next collector")
    go.touch()
    running.process.wait(60)
    status, ledger, errors = running.end()
    assert (status, ledger["balanced"], ledger["restarts"]) == (0, True, {"collector": 1}), errors
    assert (kept / "write" / digest(b"late")).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--capture", "exec"), "needs a directory for the artifacts: --capture-dir DIR"),
        (("--capture", "files", "--capture-dir", "/tmp/x"), "no such kind: files"),
        (("--capture", "exec", "--capture-dir", "/proc/version"), "Not a directory"),
    ],
)
def test_what_cannot_be_captured_is_said(options: tuple[str, ...], says: str) -> None:
    done = subprocess.run([HEADRACE, "run", *options, "--", "true"], capture_output=True, text=True, check=False)
    assert done.returncode in (2, 74)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
