"""When the kernel's own tables are looked at."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from headrace.pipeline.run import kernel


def test_a_module_that_loads_has_a_look_at_once_and_soon_after(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    clock = SimpleNamespace(now=100.0)
    programs: Any = SimpleNamespace(modules_loaded=0)
    integrity = SimpleNamespace(look=lambda: looks.append(clock.now) or [], unsure=False, close=lambda: None)
    monkeypatch.setattr(kernel, "Integrity", lambda *_: integrity)
    monkeypatch.setattr(kernel.time, "monotonic", lambda: clock.now)
    btf: Any = None
    tables = kernel.Tables(programs, btf, 30)
    for second in range(40):
        clock.now = 100.0 + second
        programs.modules_loaded = int(second >= 10)
        tables.attend()
    assert looks == [100.0, 110.0, 110.0 + kernel.AGAIN_S]
