"""What all tests share: property tests that give the same verdict every time, on any machine; compiled programs."""

from __future__ import annotations

import faulthandler
import os
import signal
import tempfile
from collections.abc import Generator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings

from tests.live import Running

settings.register_profile(
    "headrace",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=60,
    # without Phase.explain, which traces every line
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    # a fixture that all examples share is read only here
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("headrace")


@pytest.fixture(scope="module", autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """What a test that failed has left running is ended."""
    yield
    for running in list(Running.alive):
        running.kill()


@pytest.fixture(autouse=True)
def logs_go_nowhere_else() -> Iterator[None]:
    """The command line sets up logging for its process: with a captured standard error, which is closed afterwards."""
    yield
    structlog.reset_defaults()


LONG = ("tests/kernel/", "tests/process/")
FIRST, LATER = "tests/kernel/test_enrichment.py", "tests/kernel/test_containers.py"
"""These look at all containers of the host, and would wait for each other."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take long come first, so that all processes end at the same time (with --no-loadscope-reorder)."""

    def rank(item: pytest.Item) -> int:
        module = item.nodeid.partition("::")[0]
        return 0 if module == FIRST else 2 if module == LATER else 1 if module.startswith(LONG) else 3

    items.sort(key=rank)


TEARDOWN_S = 300
HANGS_S = 660
standard_error = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, None, None]:
    """A timeout of its own: pytest-timeout's ends when a test fails, just where something may be left running."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"the teardown did not end in {TEARDOWN_S} s"))
    signal.setitimer(signal.ITIMER_REAL, TEARDOWN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What no signal ends (code under test may block it) ends its process, with a traceback."""
    faulthandler.dump_traceback_later(HANGS_S, exit=True, file=item.config.stash[standard_error])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_configure(config: pytest.Config) -> None:
    """What one test compiles the next one finds, whichever process runs it; nothing is left on the host."""
    with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        config.stash[standard_error] = os.dup(2)
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.TemporaryDirectory(prefix="headrace-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["HEADRACE_CACHE"] = folder.name
