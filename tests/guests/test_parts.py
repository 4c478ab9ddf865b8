"""What can be told of guests without booting one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgspec
import pytest

from headrace.bpf.programs.compiler import Compiled, Source
from tests.guests import inside
from tests.guests.__main__ import KERNELS, is_well, shown
from tests.guests.machine import compiling, drivers
from tests.guests.table import FLOOD, MARK, events, kernels, main

DEPENDENCIES = """kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/net/virtio_net.ko.xz:
"""
BOOKS = {"produced": FLOOD, "delivered": 3, "lost": 1, "missed_by_program": {}, "balanced": True}
LIVE = {"arrived": {"openat": 1, "task_rename": 2}, "missing": [], "not_caused": {"module_load": "why"}} | {
    "ledger": {"balanced": True, "lost": 0, "produced": 9},
    "error": "",
}
RESULTS = """<testsuites><testsuite>
<testcase classname="a" name="one"/><testcase classname="a" name="two"><failure/></testcase>
<testcase classname="b" name="three"><skipped/></testcase>
</testsuite></testsuites>"""


def test_drivers_come_after_what_they_need() -> None:
    assert [Path(file).name for file in drivers(DEPENDENCIES)] == [
        *("crc32c_generic.ko.xz", "jbd2.ko.xz", "ext4.ko.xz"),
        *("netfs.ko.xz", "9pnet.ko.xz", "9p.ko.xz"),
    ]


def test_what_a_guest_leaves_is_told(tmp_path: Path) -> None:
    (tmp_path / "release").write_text("6.1.0\n")
    assert shown(tmp_path) == {"release": "6.1.0"}
    (tmp_path / "flood").write_text(json.dumps(BOOKS | {"more": 0}))
    (tmp_path / "statuses").write_text("demo 0\nflood 1\n")
    refused = {"name": "program on_x", "detail": "refused: no x: so it is"}
    (tmp_path / "live").write_text(json.dumps({"live": LIVE, "findings": [refused, {"name": "BTF", "detail": ""}]}))
    (tmp_path / "results.xml").write_text(RESULTS)
    assert shown(tmp_path) == {
        "release": "6.1.0",
        "live": LIVE | {"refused": {"program on_x": "refused: no x: so it is"}},
        "flood": BOOKS,
        "statuses": {"demo": 0, "flood": 1},
        "passed": 1,
        "failed": ["a::two"],
        "skipped": 1,
    }


@pytest.mark.parametrize(
    ("change", "well"),
    [
        ({}, True),
        ({"flood": BOOKS | {"produced": FLOOD - 1}}, False),
        ({"flood": BOOKS | {"produced": FLOOD - 1, "missed_by_program": {"sys_exit": 1}}}, True),
        ({"live": LIVE | {"missing": ["openat"]}}, False),
        ({"live": LIVE | {"ledger": {"balanced": False}}}, False),
        ({"live": {"error": "the programs were refused"}}, False),
        ({"live": LIVE | {"refused": {"program on_write": "refused: no vfs_write"}}}, False),
        ({"statuses": {"demo": 1}}, False),
        ({"failed": ["a::two"]}, False),
    ],
)
def test_what_is_not_as_it_should_be_fails(change: dict[str, object], well: bool) -> None:
    assert is_well({"live": LIVE, "flood": BOOKS, "statuses": {"demo": 0}} | change) is well


def test_the_table_says_of_each_event_how_it_came_on_each_kernel() -> None:
    live = LIVE | {"refused": {"program on_inode_rename": "refused: no security_inode_rename: too long"}}
    rows = events({"6.1": {"live": live}, "7": {"live": LIVE | {"missing": ["close"]}}})
    assert rows[0].split(" | ")[2:] == ["6.1", "7 |"]
    cells = {row.split(" | ")[0].strip("| `"): [cell.strip(" |") for cell in row.split(" | ")[2:]] for row in rows[2:]}
    assert cells["task_rename"] == ["came", "came"]
    assert cells["security_inode_rename"] == ["refused", "not there"]
    assert cells["module_load"] == ["not caused", "not caused"]
    assert cells["close"] == ["not there", "MISSING"]


def test_the_tables_go_between_their_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = {"6.1": {"release": "6.1.0", "live": LIVE, "flood": BOOKS, "passed": 3, "failed": [], "skipped": 1}}
    (tmp_path / "results").write_text(json.dumps(results))
    page, one, two = tmp_path / "page.md", MARK.format("kernels"), MARK.format("events")
    page.write_text(f"before\n{one}\nold\n{one}\nbetween\n{two}\n{two}\nafter\n")
    monkeypatch.setattr("sys.argv", ["table", str(tmp_path / "results"), str(page)])
    for _ in range(2):
        main()
        rows = (
            f"{mark}\n\n{chr(10).join(made)}\n\n{mark}"
            for mark, made in ((one, kernels(results)), (two, events(results)))
        )
        first, second = rows
        assert page.read_text() == f"before\n{first}\nbetween\n{second}\nafter\n"
    flood, tests = "40,000 counted, 1 of them lost; 0 runs missed", "3 passed, 0 failed, 1 left out"
    assert f"| 6.1: 6.1.0 | 2 | 1 | 0 | 0 of 9 | {flood} | {tests} |" in first


@pytest.mark.parametrize(
    ("text", "status", "said"), [("int on_it(void *ctx) { return 0; }", 0, b""), ("int on_it(", 1, b"error: ")]
)
def test_a_guest_has_the_host_compile(
    text: str, status: int, said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "FOLDER", tmp_path)
    source = msgspec.msgpack.encode(Source(f"#include <linux/types.h>\n{text}", ("-w",)))
    with compiling(tmp_path):
        done = inside.run(
            [sys.executable, "-I", "-m", "headrace.bpf.programs.compiler"],
            input=source,
            capture_output=True,
            check=False,
        )
    assert done.returncode == status
    assert said in done.stderr
    if not status:
        assert {*msgspec.msgpack.decode(done.stdout, type=Compiled).programs} == {"on_it"}


def test_kernels_have_names_of_their_own() -> None:
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)
