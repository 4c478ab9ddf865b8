"""Signatures as a user meets them: the tutorial of docs/signatures.md, what is refused, and findings on every sink."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import zmq

from tests.live import Running, headrace, wait_for
from workers.detect.narrowing import MOST_MEASURED, MOST_PATTERNS

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "finding.schema.json").read_text())
ONLY = ("--rules", "BAD", "--rules", "TRC-109")
"""What is not looked at need not be loaded into the kernel."""
TUTORIAL = (ROOT / "docs" / "signatures.md").read_text()


def block(title: str, language: str) -> str:
    """The first block of that language below a heading of the tutorial."""
    part = TUTORIAL.split(f"\n## {title}\n", 1)[1]
    found = re.search(rf"```{language}\n(.*?)```", part, re.S)
    assert found
    return found[1]


@pytest.fixture
def my(tmp_path: Path) -> Path:
    """The folder that the tutorial has made."""
    folder = tmp_path / "my"
    folder.mkdir()
    (folder / "shells.yaml").write_text(block("A signature in YAML", "yaml"))
    (folder / "again.py").write_text(block("A signature in Python", "python"))
    return folder


def test_what_the_tutorial_writes_holds_its_examples(my: Path) -> None:
    done = headrace("signatures", "test", str(my))
    assert (done.returncode, done.stdout) == (0, "4 examples hold, 0 do not; 0 signatures have none\n"), done.stderr
    done = headrace("signatures", "check", "--json", str(my))
    assert done.returncode == 0
    assert {json.loads(line)["id"]: json.loads(line)["coverage"] for line in done.stdout.splitlines()} == {
        "MY-1": "full",
        "MY-2": "full",
    }


@pytest.mark.kernel
def test_what_the_tutorial_writes_fires(my: Path, tmp_path: Path) -> None:
    shell = Path(f"/tmp/hr-tutorial-{os.getpid()}") / "sh"
    shell.parent.mkdir()
    sigma = tmp_path / "sigma"
    sigma.mkdir()
    (sigma / "rule.yml").write_text(
        "title: A listing\nid: 00000000-0000-4000-8000-00000000000a\nauthor: Somebody\nlevel: low\nstatus: test\n"
        "logsource: {product: linux, category: process_creation}\n"
        "detection:\n  selection:\n    Image|endswith: /ls\n    CommandLine|contains: ' -d '\n  condition: selection\n"
    )
    try:
        shell.write_bytes(Path("/bin/sh").read_bytes())
        shell.chmod(0o700)
        found = tmp_path / "found"
        script = f"exec 3</etc/passwd 4</etc/passwd 5</etc/passwd; {shell} -c :; ls -d /"
        options = ["--signatures", str(my), "--sigma", str(sigma), "--rules", "MY-*", "--rules", "0000*"]
        options += ["--workers", "2", "--before", "5", "--findings", f"json:{found}"]
        done = headrace("run", *options, "--", "sh", "-c", script)
        assert done.returncode == 0, done.stderr
    finally:
        shell.unlink()
        shell.parent.rmdir()
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    assert [f["signatureID"] for f in findings] == ["MY-2", "MY-1", "00000000-0000-4000-8000-00000000000a"]
    for finding in findings:
        jsonschema.validate(finding, SCHEMA)
        assert {event["hostProcessId"] for event in finding["before"]} <= {finding["process"]["pid"]}
        times = [event["timestamp"] for event in finding["before"]]
        assert times == sorted(times)
        assert all(time <= finding["timestamp"] for time in times)
    assert {"security_file_open"} <= {event["eventName"] for event in findings[0]["before"]}
    assert findings[0]["data"] == {"times": 2}
    first, second = findings[0]["events"]
    assert first["eventName"] == second["eventName"] == "security_file_open"
    assert first["timestamp"] < second["timestamp"] == findings[0]["timestamp"]
    assert findings[1]["data"]["argv"] == [str(shell), "-c", ":"]
    assert (findings[2]["author"], findings[2]["level"], findings[2]["title"]) == ("Somebody", "low", "A listing")
    assert findings[2]["process"]["commandLine"] == "ls -d /"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("id: [", "not YAML"),
        ("id: X\nname: x", "the key events is missing"),
        ("id: X\nname: x\nevents: [ptrace]\nsevrity: low", "no such key: sevrity; did you mean severity?"),
        ("id: X\nname: x\nevents: [ptrac]", "no such event: ptrac; did you mean ptrace?"),
        ("id: X\nname: x\nevents: {ptrace: {reqest: 0}}", "ptrace has no field reqest; did you mean request?"),
        ("id: X\nname: x\nevents: {ptrace: {request: PTRACE_TRACEM}}", "did you mean PTRACE_TRACEME?"),
        ("id: X\nname: x\nevents: {ptrace: {request|contains: a}}", "request is a number: contains does not apply"),
        ("id: X\nname: x\nevents: {openat: {pathname|re: '(?=x)'}}", "not a regular expression of RE2"),
        ("id: X\nname: x\nevents: {openat: {pathname: {list: shells}}}", "no such list: shells"),
        ("id: X\nname: x\nevents: {openat: {pathname: yes}}", "put it in quotes"),
        ("lists: {a: [{list: b}], b: [{list: a}]}", "contains itself: a -> b -> a"),
        ("- {id: X, name: x, events: [ptrace]}\n- {id: X, name: y, events: [ptrace]}", "another rule has this id"),
        ("id: X\nid: Y\nname: x\nevents: [ptrace]", "the key id stands twice"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    done = headrace("signatures", "check", str(path))
    assert done.returncode == 1
    assert why in done.stdout
    run = headrace("run", "--signatures", str(path), "--", "true")
    assert run.returncode == 2
    assert f"{path}:" in run.stderr
    assert why in run.stderr


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
    ],
)
def test_code_that_cannot_be_loaded_is_refused(tmp_path: Path, code: str, why: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(code + "\n")
    done = headrace("signatures", "check", str(path))
    assert done.returncode == 1
    assert why in done.stdout
    assert "line 1" in done.stdout


@pytest.mark.kernel
def test_code_that_fails_is_counted_and_switched_off_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from workers.detect.signature import Signature\n\n\nclass Bad(Signature):\n"
        "    id, name, events = 'BAD', 'bad', {'getppid': None}\n\n"
        "    def on_event(self, event, state):\n        raise ValueError('no')\n"
    )
    script = "import os\nfor _ in range(50): os.getppid()\nopen('/proc/sys/kernel/randomize_va_space')"
    found = tmp_path / "found"
    done = headrace(
        *("run", "--signatures", str(tmp_path), *ONLY, "--findings", f"json:{found}"),
        *("--", sys.executable, "-S", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["signatureID"] for line in found.read_text().splitlines()] == ["TRC-109"]
    assert done.stderr.count("bad.py:8: BAD: ValueError: no") == 10
    assert "it is off now" in done.stderr
    assert "balanced" in done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("body", "what"), [("__import__('os')._exit(7)", "ended its worker"), ("while True: pass", "did not return")]
)
def test_code_that_ends_or_holds_its_worker_is_switched_off_and_nothing_is_lost(
    tmp_path: Path, body: str, what: str
) -> None:
    (tmp_path / "bad.py").write_text(
        "from workers.detect.signature import Signature\n\n\nclass Bad(Signature):\n"
        "    id, name, events = 'BAD', 'bad', {'getppid': None}\n\n"
        f"    def on_event(self, event, state):\n        {body}\n"
    )
    script = "import os\nfor _ in range(50): os.getppid()\nopen('/proc/sys/kernel/randomize_va_space')"
    found, ledger = tmp_path / "found", tmp_path / "ledger"
    options = ["--signatures", str(tmp_path), *ONLY, "--findings", f"json:{found}", "--ledger", str(ledger)]
    options += ["-e", "getppid", "-o", f"json:{tmp_path / 'events'}"]
    done = headrace("run", *options, "--", sys.executable, "-S", "-c", script)
    assert done.returncode == 0, done.stderr
    assert f'reason="{what}"' in done.stderr
    assert [json.loads(line)["signatureID"] for line in found.read_text().splitlines()] == ["TRC-109"]
    assert len((tmp_path / "events").read_text().splitlines()) == 50
    books = json.loads(ledger.read_text())
    assert books["balanced"]
    assert sum(books["restarts"].values()) == 1


@pytest.mark.kernel
def test_the_kernel_takes_as_many_paths_as_may_be_told_apart_there(tmp_path: Path) -> None:
    measured = [f"/opt/{i}/a*{i}.sh" for i in range(MOST_MEASURED)]
    exact = [f"/opt/folder{i}/and/a/file/{i}" for i in range(MOST_PATTERNS - MOST_MEASURED - 1)]
    rule, ledger = tmp_path / "many.yaml", tmp_path / "ledger"
    events = {"security_file_open": {"pathname|glob": [*measured, *exact, str(tmp_path / "it")]}}
    rule.write_text(json.dumps({"id": "MANY", "name": "many", "events": events}))
    (tmp_path / "it").touch()
    options = ("--signatures", str(rule), "--rules", "MANY", "--ledger", str(ledger), "--findings", "json:-")
    done = headrace("run", *options, "--", "cat", "/etc/passwd", str(tmp_path / "it"))
    assert done.returncode == 0, done.stderr
    assert "not_narrowed" not in done.stderr
    books = json.loads(ledger.read_text())
    assert books["by_event"]["security_file_open"]["produced"] == books["findings"]["found"] == 1


@pytest.mark.kernel
def test_a_run_goes_on_if_the_kernel_does_not_take_them(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    code = "import workers.detect.narrowing as n; n.MOST_MEASURED = 1000; from pipeline.cli import main; main()"
    rule = tmp_path / "many.yaml"
    events = {"security_file_open": {"pathname|startswith": [f"/opt/{i}/x" for i in range(MOST_PATTERNS)]}}
    rule.write_text(json.dumps({"id": "MANY", "name": "many", "events": events}))
    options = ("--signatures", str(rule), "--rules", "MANY", "--ledger", str(ledger), "--", "cat", "/dev/null")
    done = subprocess.run([sys.executable, "-c", code, "run", *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "supervisor.not_narrowed" in done.stderr
    assert "BPF program is too large" in done.stderr
    assert json.loads(ledger.read_text())["by_event"]["security_file_open"]["produced"] > 1


@pytest.mark.kernel
def test_repeats_are_folded_and_counted(tmp_path: Path) -> None:
    found, ledger = tmp_path / "found", tmp_path / "ledger"
    script = "for _ in range(30): open('/proc/sys/kernel/randomize_va_space').close()"
    done = headrace(
        *("run", "--rules", "TRC-109", "--findings", f"json:{found}", "--ledger", str(ledger)),
        *("--", sys.executable, "-S", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    first, last = [json.loads(line) for line in found.read_text().splitlines()]
    for finding in (first, last):
        jsonschema.validate(finding, SCHEMA)
    assert "count" not in first
    assert (last["signatureID"], last["count"]) == ("TRC-109", 29)
    assert last["firstTime"] < last["lastTime"]
    assert last["pids"] == [first["process"]["pid"]]
    assert json.loads(ledger.read_text())["findings"] == {"found": 30, "published": 1, "folded": 29, "below": 0}


@pytest.mark.kernel
@pytest.mark.parametrize("workers", [1, 3])
def test_a_threshold_counts_over_all_workers(tmp_path: Path, workers: int) -> None:
    found, ledger, rule = tmp_path / "found", tmp_path / "ledger", tmp_path / "many.yaml"
    rule.write_text(
        "id: MANY\nname: many\nthreshold: {count: 3, within: 60, by: [argv]}\ndata: [argv]\n"
        "events: {sched_process_exec: {process.name: 'true'}}\n"
    )
    script = "; ".join(f"/bin/true {word}" for word in "ababaaacb")
    done = headrace(
        *("run", "--signatures", str(rule), "--rules", "MANY", "--workers", str(workers), "--fold", "0"),
        *("--findings", f"json:{found}", "--ledger", str(ledger), "--", "sh", "-c", script),
    )
    assert done.returncode == 0, done.stderr
    findings = [json.loads(line) for line in found.read_text().splitlines()]
    for finding in findings:
        jsonschema.validate(finding, SCHEMA)
    assert [(f["data"]["argv"], f["threshold"]["count"]) for f in findings] == [
        (["/bin/true", "a"], 3),
        (["/bin/true", "b"], 3),
    ]
    assert all(f["threshold"]["firstTime"] < f["threshold"]["lastTime"] for f in findings)
    books = json.loads(ledger.read_text())
    assert (books["balanced"], books["findings"]) == (True, {"found": 9, "published": 2, "folded": 0, "below": 7})


UNTIL_INPUT = """
import select, sys
while not select.select([sys.stdin], [], [], 0.01)[0]:
    open('/proc/sys/kernel/randomize_va_space').close()
"""


@pytest.mark.kernel
def test_findings_go_out_under_topics_beside_events(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/socket"
    running = Running(
        *(
            "-e",
            "getppid",
            "-o",
            f"zmq:{endpoint}",
            "--findings",
            f"zmq:{endpoint}",
            "--rules",
            "TRC-109",
            "--fold",
            "0",
        ),
        *("--", sys.executable, "-S", "-c", UNTIL_INPUT),
        stdin=-1,
    )
    context = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.connect(endpoint)
    socket.setsockopt(zmq.SUBSCRIBE, b"finding/info/")
    socket.setsockopt(zmq.RCVTIMEO, 20_000)
    try:
        wait_for(lambda: running.ready, "the run")
        topic, header, payload = socket.recv_multipart()
    finally:
        assert running.process.stdin is not None
        running.process.stdin.write("\n")
        running.process.stdin.flush()
        context.destroy(linger=0)
    status, ledger, errors = running.end()
    assert status == 0, errors
    assert topic == b"finding/info/TRC-109/"
    assert json.loads(header)["count"] == len(payload.splitlines())
    assert json.loads(payload.splitlines()[0])["signatureID"] == "TRC-109"
    assert ledger["balanced"]
