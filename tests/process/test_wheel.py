"""The package as users install it: one name, all that it needs in it, and the same command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = (".git", ".venv", "node_modules", "build", "*.egg-info", ".*_cache", "__pycache__", "tests", "bench", "docs")
DEADLINE_S = 120
OLD = """from workers.detect.signature import Signature


class Mine(Signature):
    id, name = "MINE", "mine"
    events = {"execve": None}

    def on_event(self, event, state):
        return True
"""


def output(*line: str | Path, **options: object) -> str:
    """What a command prints, both of its outputs."""
    done = subprocess.run(
        [str(each) for each in line],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE_S, check=False, **options,
    )  # type: ignore[call-overload]  # fmt: skip
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it. What it depends on is found in that of the tests, which has it locked."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    output(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "source")
    output(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    (wheel,) = folder.glob("headrace-*.whl")
    output(*pip, "--python", folder / "env", "install", "--no-deps", wheel)
    (packages,) = (folder / "env" / "lib").glob("python3*/site-packages")
    assert {path.name for path in packages.iterdir() if path.suffix != ".dist-info"} == {"headrace"}
    # a line of a .pth file is a folder; those that are in it are not read, so that the checkout is not found there
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin"


def test_what_is_imported_is_the_wheels(installed: Path) -> None:
    code = "import headrace, headrace.bpf.layout as inner; print(headrace.__file__, inner.__file__)"
    files = output(installed / "python", "-c", code, cwd="/").split()
    assert all(Path(file).is_relative_to(installed.parent) for file in files)


@pytest.mark.kernel
def test_the_demonstration_runs_from_it(installed: Path) -> None:
    shown = output(installed / "headrace", "demo", cwd="/")
    assert "showing a recording" not in shown
    assert "sched_process_exec" in shown
    assert "balanced" in shown


def test_without_rights_it_shows_the_recording_that_comes_with_it(installed: Path) -> None:
    # root without a single capability is nobody, but reaches the interpreter wherever it is
    bare = () if os.geteuid() else ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    shown = output(*bare, installed / "headrace", "demo", cwd="/", env={"PATH": os.environ["PATH"]})
    assert "headrace: showing a recording instead of this host" in shown
    assert "sched_process_exec" in shown
    assert "balanced" in shown


@pytest.mark.kernel
def test_a_run_finds_the_distributions_bcc_and_signatures_in_python(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OLD)
    line = ("run", "--signatures", tmp_path, "--rules", "MINE", "--cache", tmp_path / "cache", "--", "/bin/true")
    shown = output(installed / "headrace", *line, cwd="/")
    assert f"{tmp_path}/mine.py: imports workers.detect.signature, which is called headrace.signature now" in shown
    assert "MINE" in shown
    assert "balanced" in shown
    assert list((tmp_path / "cache").iterdir()), "the programs were not compiled here"


def test_every_signature_that_ships_is_in_it(installed: Path) -> None:
    here = output(Path(sys.executable).with_name("headrace"), "signatures", "list", cwd="/")
    assert output(installed / "headrace", "signatures", "list", cwd="/") == here


@pytest.mark.kernel
def test_stages_read_nothing_of_a_folder_that_is_closed_to_them(installed: Path, tmp_path: Path) -> None:
    closed = [parent for parent in installed.parents if not parent.stat().st_mode & 1]
    assert closed, "pytest's folders are private"
    conditions = ("openat.pathname=/etc/*", "prctl.option=PR_SET_NAME,execve", "sched_process_exec")
    outputs = [f"{kind}:{tmp_path / kind}" for kind in ("json", "table", "arrow")]
    findings = [f"{kind}:{tmp_path / f'findings-{kind}'}" for kind in ("json", "table")]
    options = [
        *(each for value in conditions for each in ("-e", value)), "--containers", "--exec-hash",
        *(each for value in outputs for each in ("-o", value)),
        *(each for value in findings for each in ("--findings", value)),
    ]  # fmt: skip
    shown = output(installed / "headrace", "run", *options, "--", "/bin/cat", "/etc/hostname", cwd="/")
    assert "Traceback" not in shown
    assert "restarted" not in shown
    assert "balanced" in shown
