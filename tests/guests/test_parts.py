"""What can be told of guests without booting one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.guests.__main__ import KERNELS, shown
from tests.guests.machine import drivers

DEPENDENCIES = """kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz
kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/drivers/net/virtio_net.ko.xz:
"""
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
    books = {"produced": 3, "delivered": 2, "lost": 1, "balanced": True, "more": 0}
    (tmp_path / "ledger").write_text(json.dumps(books))
    (tmp_path / "results.xml").write_text(RESULTS)
    assert shown(tmp_path) == {
        "release": "6.1.0",
        "smoke": {"produced": 3, "delivered": 2, "lost": 1, "balanced": True},
        "passed": 1,
        "failed": ["a::two"],
        "skipped": 1,
    }


def test_kernels_have_names_of_their_own() -> None:
    assert len({kernel.name for kernel in KERNELS}) == len(KERNELS)
