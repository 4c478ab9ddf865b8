"""What all tests share: property tests that give the same verdict every time, on any machine; compiled programs."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import HealthCheck, Phase, settings

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


CONTAINERS = ("test_containers", "test_enrichment", "test_signatures")
"""They look at containers, or at all of the host's: at those of each other, if they ran side by side."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`make test`): those of a file stay together."""
    for item in items:
        group = "containers" if item.path.parent.name == "kernel" and item.path.stem in CONTAINERS else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


def pytest_configure(config: pytest.Config) -> None:
    """What one test compiles the next one finds, whichever process runs it; nothing is left on the host."""
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.TemporaryDirectory(prefix="headrace-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["HEADRACE_CACHE"] = folder.name
