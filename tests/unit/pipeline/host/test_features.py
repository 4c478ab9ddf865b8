"""What a host says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.pipeline.host import features as host


@pytest.mark.parametrize(
    ("text", "ok", "detail"),
    [
        ("[none] integrity confidentiality\n", True, "none"),
        ("none [integrity] confidentiality\n", True, "integrity"),
        ("none integrity [confidentiality]\n", False, "confidentiality: programs may not read the kernel's memory"),
    ],
)
def test_how_far_the_kernel_is_locked_down_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, ok: bool, detail: str
) -> None:
    file = tmp_path / "lockdown"
    monkeypatch.setattr(host, "LOCKDOWN", file)
    assert host._lockdown() == []
    file.write_text(text)
    [found] = host._lockdown()
    assert (found.ok, found.detail) == (ok, detail)
    assert bool(found.remedy) is not ok
