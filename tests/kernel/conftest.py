"""One traced run of quirks.c serves all tests that look at single events; engines serve a module each."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import Containerd, Engine, Podman
from tests.live import Traced, compile_c, trace

HERE = Path(__file__).parent
EVENTS = "syscalls,sched_process_fork,sched_process_exec,sched_process_exit,task_rename,unknown_syscall"


@pytest.fixture(scope="session")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Test programs: the quirks, the benchmarks' load, and two of the other word size."""
    folder = tmp_path_factory.mktemp("binaries")
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    executes = folder / "executes.c"
    executes.write_text("int main(int n, char **v) { char *e[] = {0}; execve(v[1], v + 1, e); return 1; }\n")
    return {
        "quirks": compile_c(HERE / "quirks.c", folder / "quirks"),
        "load": compile_c(HERE.parents[1] / "bench" / "load.c", folder / "load"),
        "other32": compile_c(empty, folder / "other32", "-m32"),
        "from32": compile_c(executes, folder / "from32", "-m32"),
    }


@pytest.fixture(scope="session")
def quirks(binaries: dict[str, Path]) -> Traced:
    """All cases of quirks.c, traced."""
    command = [str(binaries[name]) for name in ("quirks", "other32", "from32")]
    return trace(command, "--workers", "2", "-e", EVENTS)


@pytest.fixture(scope="module")
def only_containers() -> Iterator[None]:
    """For tests that look at all containers of the host: those of other files wait, if another process runs them."""
    with Path(os.environ["HEADRACE_CACHE"], "containers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    running = Engine()
    yield running
    running.close()


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    running = Podman()
    yield running
    running.close()


@pytest.fixture(scope="module")
def containerd(podman: Podman) -> Iterator[Containerd]:
    running = Containerd(podman)
    yield running
    running.close()
