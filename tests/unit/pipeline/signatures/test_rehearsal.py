"""Signatures in Python are read as a worker reads them before anything else runs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.pipeline.command.signatures import rules_of
from headrace.pipeline.signatures.rehearsal import refusal

GOOD = """from headrace.signature import Signature
class Good(Signature):
    id, name, events = "GOOD-1", "good", {"openat": None}
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("open('made', 'w')", "PermissionError"),
        ("import os; os.system('touch made')", ""),  # it may ask, and gets no process
        ("import subprocess; subprocess.run(['touch', 'made'])", "PermissionError"),
        ("import socket; socket.socket()", "PermissionError"),
        ("import os; os._exit(3)", "its code ended the process"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "PermissionError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("while True: pass", "its code did not end"),
        ("import (", "SyntaxError"),
        (
            "import os\nfor fd in range(3, 64):\n try: os.write(fd, b'\\xff' * 99)\n except OSError: pass\nos._exit(0)",
            "\ufffd",
        ),
    ],
)
def test_code_that_wants_more_than_a_worker_may_is_refused(
    code: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = refusal(tmp_path / "bad.py", f"{code}\n{GOOD}", deadline_s=2)
    assert found and found.why.startswith(f"in a worker: {why}") if why else found is None
    assert not (tmp_path / "made").exists()


def test_what_a_worker_would_not_read_is_not_run_here_either(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(f"import os\nos._exit(7)\n{GOOD}")
    (tmp_path / "good.py").write_text(GOOD)
    found = rules_of((str(tmp_path),))
    assert [rule.id for rule in found.rules] == ["GOOD-1"]
    (error,) = found.refused
    assert (error.file, error.why) == (
        str(tmp_path / "bad.py"),
        "in a worker: its code ended the process (status 7)",
    )
    assert os.getpid()
