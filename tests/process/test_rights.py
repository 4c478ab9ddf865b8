"""The rights that a run needs, tried by a user that is not root: no more than `headrace check` names."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.bpf.host.btf import Btf
from headrace.bpf.host.probes import can_be_preempted
from headrace.pipeline.host.features import CAPABILITIES, FOR_TRACEFS, SMALLEST
from tests.live import HEADRACE, arguments

USER = 64_999
ROOT = Path(__file__).parents[2]
NEEDED = (*SMALLEST, FOR_TRACEFS) if can_be_preempted(Btf.of_kernel()) else SMALLEST


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a command line begins with in a mount namespace where that user reaches the interpreter and the checkout,
    wherever they are.
    """
    folder = tmp_path_factory.mktemp("rights")
    places = [Path(sys.base_prefix), ROOT]
    closed = {next((d for d in reversed(place.parents) if not d.stat().st_mode & 1), None) for place in places} - {None}
    script = []
    for number, place in enumerate(places):
        (folder / str(number)).mkdir()
        script.append(f"mount --rbind '{place}' '{folder}/{number}'")
    script += [f"mount -t tmpfs -o mode=755 none '{each}'" for each in closed]
    for number, place in enumerate(places):
        if any(each in place.parents for each in closed):
            script.append(f"mkdir -p '{place}' && mount --rbind '{folder}/{number}' '{place}'")
    return ["unshare", "-m", "sh", "-c", " && ".join([*script, 'exec "$@"']), "sh"]


def headrace(prefix: list[str], rights: tuple[str, ...], home: Path, *line: str) -> subprocess.CompletedProcess[str]:
    """A run of a user that has these capabilities and no others."""
    numbers = "".join(f",+cap_{CAPABILITIES[name]}" for name in rights)
    sets = [f"--{kind}=-all{numbers}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    user = [f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    os.chown(home, USER, USER)
    for parent in itertools.takewhile(lambda each: each != Path("/tmp"), home.parents):
        parent.chmod(0o711)
    environment = os.environ | {"HOME": str(home), "HEADRACE_CACHE": str(home)}
    command = [*prefix, "setpriv", *user, *sets, HEADRACE, *line]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd="/", check=False)


@pytest.mark.kernel
@pytest.mark.parametrize("more", [(), ("--exec-hash", "--containers", "--fd-paths")])
def test_a_user_with_them_traces(prefix: list[str], tmp_path: Path, more: tuple[str, ...]) -> None:
    events = "sched_process_exec,mprotect,security_file_open,exit_group"
    line = ("run", "-e", events, *more, "-o", "json:-", "--ledger", str(tmp_path / "ledger"), "--", "/bin/true")
    done = headrace(prefix, NEEDED, tmp_path, *line)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "ledger").read_text())["balanced"] is True
    found = [json.loads(text) for text in done.stdout.splitlines()]
    assert {event["eventName"] for event in found} == set(events.split(","))
    assert {event["userId"] for event in found} == {USER}
    assert arguments(found[0])["pathname"] == "/usr/bin/true"


@pytest.mark.kernel
@pytest.mark.parametrize("lacking", NEEDED)
def test_what_is_missing_is_named(prefix: list[str], tmp_path: Path, lacking: str) -> None:
    rights = tuple(name for name in NEEDED if name != lacking)
    done = headrace(prefix, rights, tmp_path, "run", "-e", "execve", "--", "/bin/true")
    assert done.returncode == 69
    assert f"capabilities: {lacking} missing" in done.stderr
    checked = headrace(prefix, rights, tmp_path, "check")
    assert checked.returncode == 69
    assert f"{lacking} missing" in checked.stdout
