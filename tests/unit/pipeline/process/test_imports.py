"""Quick imports leave the process as it was."""

from __future__ import annotations

import gc
import os

import pytest

from headrace.pipeline.process import imports


@pytest.mark.parametrize("before", [None, "4"])
def test_garbage_is_collected_and_the_environment_is_as_before(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv(imports.THREADS, raising=False)
    else:
        monkeypatch.setenv(imports.THREADS, before)
    with imports.quick():
        assert not gc.isenabled()
        assert os.environ[imports.THREADS] == "1"
    assert gc.isenabled()
    assert os.environ.get(imports.THREADS) == before
    gc.unfreeze()
