"""A kernel without BTF: its types come from a file, or there is no run, and the message says what would help."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from headrace.bpf.host.btf import EXTERNAL, VMLINUX
from tests.live import DEADLINE_S, HEADRACE

WITHOUT = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs none {VMLINUX.parent} && exec "$@"', "sh"]


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel's types, in a file."""
    file = tmp_path_factory.mktemp("types") / "btf"
    file.write_bytes(VMLINUX.read_bytes())
    return file


def _without(*line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WITHOUT, HEADRACE, *line],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        env=os.environ | environment,
    )


def test_without_types_there_is_no_run_and_it_is_said_what_helps() -> None:
    done = _without("run", "--", "/bin/true")
    assert done.returncode == os.EX_UNAVAILABLE
    assert str(VMLINUX) in done.stderr
    assert EXTERNAL in done.stderr


def test_types_from_a_file_are_as_good(types: Path, tmp_path: Path) -> None:
    ledger, events = tmp_path / "ledger", tmp_path / "events"
    line = ("-e", "default", "-o", f"json:{events}", "--ledger", str(ledger), "--", "sh", "-c", "cat /etc/hostname")
    done = _without("run", "--btf", str(types), *line)
    assert done.returncode == 0, done.stderr
    assert json.loads(ledger.read_text())["balanced"] is True
    opened = [json.loads(text) for text in events.read_text().splitlines() if "security_file_open" in text]
    assert "/etc/hostname" in {a["value"] for e in opened for a in e["args"] if a["name"] == "pathname"}


def test_the_environment_names_the_file_as_well(types: Path) -> None:
    done = _without("check", "-o", "json", **{EXTERNAL: str(types)})
    found = {f["name"]: f for f in json.loads(done.stdout)["findings"]}
    assert (done.returncode, found["BTF"]["detail"]) == (0, str(types))


@pytest.mark.parametrize(("content", "reason"), [(b"", "shorter than its header"), (b"x" * 64, "magic")])
def test_a_file_without_types_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "btf").write_bytes(content)
    done = _without("run", "--btf", str(tmp_path / "btf"), "--", "/bin/true")
    assert done.returncode == os.EX_UNAVAILABLE
    assert reason in done.stderr
