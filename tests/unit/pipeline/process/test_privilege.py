"""What is found out about rights by trying."""

from __future__ import annotations

from pathlib import Path

from headrace.pipeline.process.privilege import descriptors_need_right


def test_a_right_that_descriptors_need_is_told_by_trying() -> None:
    def needs() -> None:
        effective = next(
            line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff")
        )
        if not int(effective.split()[1], 16):
            raise PermissionError(1, "Operation not permitted")

    before = Path("/proc/self/status").read_text()
    assert descriptors_need_right(needs) is True
    assert descriptors_need_right(lambda: None) is False
    after = Path("/proc/self/status").read_text()
    assert [line for line in before.splitlines() if line.startswith("Cap")] == [
        line for line in after.splitlines() if line.startswith("Cap")
    ]
