"""The same events give the same findings: live, from the run's recording, and from the run's own JSON lines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.bpf.tables.catalogue import catalogue
from headrace.workers.core import Core
from tests.live import DEADLINE_S, HEADRACE, headrace
from tests.unit.workers.detect.test_same_values import Both, turns

pytestmark = pytest.mark.kernel
SHOULD_DIFFER = ("eventIndex", "generation", "complete", "gaps")
"""What says when and how something was found, not what."""

OTHERS = """
import ctypes, os, socket, subprocess, sys
os.chdir(sys.argv[1])
true = os.path.join(sys.argv[1], "true")
open(b"na\\xffme", "w").close()
open(b"na\\xfeme", "w").close()
os.rename(b"na\\xffme", b"moved\\xff")
os.link("/etc/hostname", "linked") if os.stat("/etc/hostname").st_dev == os.stat(".").st_dev else None
for line in ([true, b"a\\xff"], [true, b"a\\xfe"], [true, ""], [true, "x", ""], [true, "y" * 5000]):
    subprocess.run(line)
subprocess.run(["true"], executable="./true", env={"LD_PRELOAD": "", "EVIL": "1"})
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace(0, 0, 0, 0)
where = ctypes.create_string_buffer(8)
class vec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
one = vec(ctypes.addressof(where), 8)
libc.process_vm_readv(os.getpid(), ctypes.byref(one), 1, ctypes.byref(one), 1, 0)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen()
client = socket.socket()
client.connect(listening.getsockname())
spare = os.dup(0)
os.dup2(client.fileno(), 0)
os.dup2(spare, 0)
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.sendto(b"x", ("127.0.0.1", 9))
for name in (b"\\0a\\xff", b"\\0a\\xfe", b"\\0a\\\\xfe"):
    local = socket.socket(socket.AF_UNIX)
    local.bind(name)
if os.fork() == 0:
    os.setresuid(65534, 65534, 65534)
    os.execv(true, ["nobody's", "--as-nobody"])
os.wait()
if os.fork() == 0:
    os.setresuid(0, 65534, 0)
    subprocess.run([true, "--euid"])
    os._exit(0)
os.wait()
if os.fork() == 0:
    os.chroot(sys.argv[1])
    open("/name-in-root", "w").close()
    os._exit(0)
os.wait()
"""
SHELL = """
cp /bin/true {folder}/true; cp /bin/sh {folder}/evil-sh
cat /proc/self/maps >/dev/null; cat /proc/sys/kernel/randomize_va_space >/dev/null
LD_PRELOAD=/nonexistent/evil.so {folder}/true 2>/dev/null
{folder}/evil-sh -c '{folder}/true --from-evil; {folder}/true again; :'
cp /bin/true {folder}/.hidden; {folder}/evil-sh -c ': >{folder}/sudoers'
{python} {folder}/others.py {folder}; exit 0
"""
PROCESS = {"product": "linux", "category": "process_creation"}
FILE = {"product": "linux", "category": "file_event"}
SIGMA = [
    (PROCESS, {"ParentImage|endswith": "/evil-sh"}),
    (PROCESS, {"User": "nobody", "CommandLine|contains": "--as-nobody"}),
    (PROCESS, {"User": "root", "CommandLine|endswith": "--from-evil"}),
    (PROCESS, {"ParentCommandLine|contains": "--from-evil", "Image|endswith": "/true"}),
    (PROCESS, {"CurrentDirectory|contains": "same-findings", "CommandLine|re": "true$"}),
    (FILE, {"TargetFilename|endswith": "/sudoers", "ParentImage|endswith": "sh"}),
    (FILE, {"TargetFilename|contains": "na", "CommandLine|contains": "others.py", "User": "root"}),
    ({"product": "linux", "category": "network_connection"}, {"DestinationIp": "127.0.0.1", "User|contains": "r"}),
    ({"product": "linux", "service": "auditd"}, {"type": "SYSCALL", "SYSCALL": "execve", "euid": "65534"}),
]
OWN = """
- {id: OWN-1, name: a, severity: low, events: {security_file_open: {ancestors.path|endswith: /python3.11}}}
- {id: OWN-2, name: b, severity: low, events: {sched_process_exec: {process.cap_effective: 0}}, data: {a: argv}}
- {id: OWN-3, name: c, severity: low, events: {sched_process_exec: {env|startswith: EVIL=}}, data: {e: env}}
- {id: OWN-4, name: d, severity: low, events: {process_vm_readv: {target.own: true}}}
- {id: OWN-5, name: e, severity: low, events: {security_socket_bind: {local_addr.path|contains: a}}}
- {id: OWN-6, name: f, severity: low, events: {dup2: {descriptor.path|contains: TCP}}, data: {d: descriptor.path}}
- {id: OWN-7, name: g, severity: low, events: {security_file_open: {pathname|endswith: /name-in-root}}}
- {id: OWN-8, name: h, severity: low, events: {security_file_open: {root_pathname|startswith: /name-in}}}
- {id: OWN-9, name: i, severity: low, events: {setresuid: {process.login_uid: 4294967295}}}
"""


@dataclass
class Run:
    """What one run has left."""

    folder: Path
    options: tuple[str, ...]
    ids: set[str]

    @property
    def recording(self) -> Path:
        return self.folder / "recording"

    @property
    def lines(self) -> Path:
        return self.folder / "events"

    def found(self) -> list[dict[str, Any]]:
        """Live."""
        return [json.loads(line) for line in (self.folder / "found").read_text().splitlines()]


@pytest.fixture(scope="module")
def traced() -> Iterator[Run]:
    # nobody must get there, too
    folder = Path(tempfile.mkdtemp(prefix="same-findings-"))
    folder.chmod(0o755)
    try:
        yield run(folder, 2)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, workers: int, *more: str) -> Run:
    sigma = folder / "sigma"
    sigma.mkdir()
    ids = set()
    for number, (source, selection) in enumerate(SIGMA):
        ids.add(str(uuid.UUID(int=number)))
        rule = {"title": f"Rule {number}", "id": str(uuid.UUID(int=number)), "level": "low", "status": "test"}
        detection = {"s": selection, "condition": "s"}
        (sigma / f"{number}.yml").write_text(yaml.safe_dump(rule | {"logsource": source, "detection": detection}))
    own = folder / "own"
    own.mkdir()
    for rule in yaml.safe_load(OWN):
        ids.add(rule["id"])
        (own / f"{rule['id']}.yaml").write_text(yaml.safe_dump(rule))
    (folder / "others.py").write_text(OTHERS)
    options = ("--signatures", str(own), "--sigma", str(sigma))
    script = SHELL.format(folder=folder, python=sys.executable)
    line = [HEADRACE, "run", *options, "--fold", "0", *(more or ("-e", "*", "--fd-paths", "--exec-env"))]
    line += ["--workers", str(workers), "--record", str(folder / "recording"), "-o", f"json:{folder / 'events'}"]
    line += ["--findings", f"json:{folder / 'found'}", "--", "sh", "-c", script]
    done = subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "  balanced" in done.stderr, done.stderr
    return Run(folder, options, ids)


def comparable(findings: list[dict[str, Any]]) -> list[str]:
    """Without what says when and how they were found; in the order of time."""
    kept = [{key: value for key, value in one.items() if key not in SHOULD_DIFFER} for one in findings]
    return sorted(json.dumps(one, sort_keys=True) for one in kept)


def analyzed(traced: Run, source: Path) -> list[dict[str, Any]]:
    done = headrace("analyze", *traced.options, str(source))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_rule_of_the_test_fires(traced: Run) -> None:
    assert {one["signatureID"] for one in traced.found()} >= traced.ids


@pytest.mark.parametrize("what", ["recording", "lines"])
def test_findings_are_those_of_the_run(traced: Run, what: str) -> None:
    found = comparable(analyzed(traced, getattr(traced, what)))
    assert found == comparable(traced.found())


def test_every_field_is_the_same_in_a_row_and_in_its_line(traced: Run) -> None:
    core = Core(catalogue(), 0, 1)
    both = Both(core)
    assert [each for rows in turns(traced.recording, core) for each in both.differences(rows)] == []


def test_a_recording_has_what_the_signatures_of_its_run_need_whatever_is_shown() -> None:
    with tempfile.TemporaryDirectory(prefix="same-findings-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        traced = run(folder, 2, "-e", "getppid")
        assert traced.ids <= {one["signatureID"] for one in traced.found()}
        done = headrace("analyze", *traced.options, str(traced.recording))
        assert comparable([json.loads(line) for line in done.stdout.splitlines()]) == comparable(traced.found())
        # nothing that this host can give
        assert not traced.ids & set(ids_in(done.stderr)), done.stderr
        # lines have what was shown, and that is said
        done = headrace("analyze", *traced.options, str(traced.lines))
        assert done.stdout == ""
        assert traced.ids <= set(ids_in(done.stderr)), done.stderr


def ids_in(errors: str) -> list[str]:
    """Signatures that are said not to be covered."""
    lines = errors.partition("not covered by this input")[2].splitlines()[1:]
    return [word for line in lines for word in line.rpartition(": ")[2].replace(";", ",").replace(",", " ").split()]


def test_a_recording_without_what_signatures_need_says_so(tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    done = headrace("run", "-e", "sched_process_exec", "--record", str(recording), "-o", "none", "--", "true")
    assert done.returncode == 0, done.stderr
    ledger = tmp_path / "ledger"
    done = headrace("replay", str(recording), "--findings", "json:-", "-o", "none", "--ledger", str(ledger))
    assert "  not covered by this input: " in done.stderr
    assert "no event ptrace: TRC-102, TRC-103" in done.stderr
    uncovered = json.loads(ledger.read_text())["uncovered"]
    assert uncovered["TRC-102"] == "none: no event ptrace"
    assert "sched_process_exec without env" in uncovered["TRC-107"]
