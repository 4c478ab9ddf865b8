"""strace watches the same processes: no value is another one, and words are left undecoded of few arguments."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.strace import Compared, watch
from tests.live import compile_c

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")]
HERE = Path(__file__).parent


def test_no_value_is_another_one_than_straces(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text("root:x:0:0:root:/root:/bin/sh\n" * 3)
    found = Compared()
    work = tmp_path / "work"
    work.mkdir()
    watch(["sh", str(HERE / "commands.sh"), str(work), str(passwd)], found, tmp_path)
    program = compile_c(HERE / "arguments.c", tmp_path / "arguments")
    watch([str(program), str(work)], found, tmp_path)
    _no_value_differs(found)
    arguments = found.classes.total()
    assert arguments > 10_000
    assert found.classes["undecoded"] < arguments // 50
    assert found.classes["words"] < arguments // 50


def test_nor_in_32_bit_programs(tmp_path: Path) -> None:
    program = compile_c(HERE / "narrow.c", tmp_path / "narrow", "-m32")
    found = Compared()
    watch([str(program), str(tmp_path)], found, tmp_path)
    # strace joins the halves of its offset, and shifts what stands behind them
    for key in [key for key in found.unlike if key[1] == "_llseek"]:
        del found.unlike[key]
    _no_value_differs(found)
    assert found.calls > 70


def _no_value_differs(found: Compared) -> None:
    assert found.unmatched <= found.calls // 100
    assert found.results == 0
    wrong = {key: found.examples[key] for key in found.unlike if key[0] == "wrong"}
    assert wrong == {}
