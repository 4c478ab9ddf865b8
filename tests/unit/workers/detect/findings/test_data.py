"""What findings of Sigma rules show and are folded by: the command line, the path, or where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config import conditions
from headrace.workers.core import Core
from headrace.workers.detect.detector import Detector, FindingOptions
from headrace.workers.detect.findings.shapes import shape
from headrace.workers.detect.offline.analysis import Analysis
from headrace.workers.detect.rules import matching
from headrace.workers.detect.rules.fields import field_of
from headrace.workers.views.style import HostFacts
from tests.unit.frames import Record, frame, view
from tests.unit.workers.detect.rules.test_sigma_rules import AUDIT, PROCESS, loaded, matches, one
from tests.unit.workers.enrich.test_tree import executed
from tests.unit.workers.enrich.test_tree import who as some_process

NETWORK = "product: linux\ncategory: network_connection"
FILE = "product: linux\ncategory: file_event"
ADDRESSES = ("remote_addr", "dest_addr", "addr")
COMMAND = ["process.command_line", "process.image"]


class Terminal:
    """None."""

    colour = False
    columns = 0


def found(rule: Any, *records: Record) -> tuple[list[bytes], list[int]]:
    """Findings of some records, and what they are folded by."""
    core = Core(catalogue(), 0, 1)
    detector = Detector([rule], catalogue())
    detector.open(catalogue(), HostFacts(0), core.tree, FindingOptions(b"secret"))
    core.look(detector.match, detector.shared)
    core.feed(view(frame(list(records))))
    batch = core.advance(2**62)
    assert batch.matches is not None
    rendered = detector.render(batch.ripe, core.contexts, batch.matches, slice(0, len(batch.matches)))
    return rendered.data.splitlines(keepends=True), rendered.marks["fold"].tolist()


@pytest.mark.parametrize(
    ("source", "detection", "data"),
    [
        (PROCESS, "Image: /bin/x", COMMAND),
        (FILE, "TargetFilename: /x", ["pathname", "new_path", "linkpath", "file_name"]),
        (
            NETWORK,
            "DestinationPort: 1",
            [f"{a}.{part}" for a in ADDRESSES for part in ("ip", "port")],
        ),
        (AUDIT, "type: EXECVE\n    a0: x", COMMAND),
        (AUDIT, "type: PATH\n    name: /x", [*COMMAND, "pathname"]),
        (AUDIT, "type: SYSCALL\n    SYSCALL: unlinkat", ["process.command_line", "pathname"]),
    ],
)
def test_what_a_rule_looks_at_is_its_data(tmp_path: Path, source: str, detection: str, data: list[str]) -> None:
    rule = one(tmp_path, source, f"selection:\n    {detection}\ncondition: selection")
    assert sorted(rule.data) == sorted(data)
    assert all(name == shown for name, shown in rule.data.items())


def test_different_command_lines_of_one_executable_are_different_findings(tmp_path: Path) -> None:
    rule = one(tmp_path, PROCESS, "selection:\n    Image: /bin/x\ncondition: selection")
    lines = [b"x\0-a\0", b"x\0-b\0", b"x\0-a\0"]
    records = [executed(10 * n, some_process(5, 100, 7), b"/bin/x", argv) for n, argv in enumerate(lines, 1)]
    shown, folds = found(rule, *records)
    first, second, third = (json.loads(line) for line in shown)
    assert first["data"] == third["data"] == {"process.command_line": "x -a", "process.image": "/bin/x"}
    assert second["data"]["process.command_line"] == "x -b"
    assert folds[0] == folds[2] != folds[1]
    assert b"process.command_line=" in shape("table", shown[0], Terminal())
    assert b"x -b" in shape("table", shown[1], Terminal())


def test_a_finding_has_no_keys_that_its_event_cannot_have(tmp_path: Path) -> None:
    rule = one(tmp_path, FILE, "selection:\n    TargetFilename: /etc/x\ncondition: selection")
    analysis = Analysis([rule], catalogue(), pytest.fail)
    events = [("security_inode_rename", "new_path"), ("security_inode_symlink", "linkpath")]
    for name, path in events:
        line = json.dumps({"eventName": name, "args": [{"name": path, "value": "/etc/x"}]}).encode()
        event = analysis.read(0, line)
        assert event is not None
        assert [finding["data"] for finding in analysis.findings([event])] == [{path: "/etc/x"}]


def test_an_address_is_shown_with_its_port(tmp_path: Path) -> None:
    rule = one(tmp_path, NETWORK, "selection:\n    DestinationPort: 4444\ncondition: selection")
    analysis = Analysis([rule], catalogue(), pytest.fail)
    address = {"sa_family": "AF_INET", "sin_addr": "10.0.0.2", "sin_port": "4444"}
    given = {"eventName": "security_socket_connect", "args": [{"name": "remote_addr", "value": address}]}
    event = analysis.read(0, json.dumps(given).encode())
    assert event is not None
    (finding,) = analysis.findings([event])
    assert finding["data"] == {"remote_addr.ip": "10.0.0.2", "remote_addr.port": 4444}


@pytest.mark.parametrize("port", ["70000", "65536", "-1"])
@pytest.mark.parametrize("operator", ["", "|gt", "|gte", "|lt", "|lte", "|neq"])
def test_what_is_no_port_is_refused(tmp_path: Path, port: str, operator: str) -> None:
    detection = f"selection:\n    DestinationPort{operator}: {port}\ncondition: selection"
    rules, refused = loaded(tmp_path, NETWORK, detection)
    assert rules == []
    assert [error.rpartition(": ")[2] for error in refused] == [f"{port} is not a port (0 to 65535)"]


@pytest.mark.parametrize("value", [1 << 32, str(1 << 32), -(1 << 31) - 1])
def test_a_number_that_a_field_has_no_room_for_is_refused(value: int | str) -> None:
    # cut to 32 bits it would be another
    field = field_of(catalogue().by_name["kill"], "pid")
    with pytest.raises(matching.TestError, match="not a number of 32 bits"):
        matching.check(field, conditions.Test("pid", "equals", (value,)))
    matching.check(field, conditions.Test("pid", "equals", (-1, 0xFFFFFFFF)))


@pytest.mark.parametrize("port", [0, 65535])
def test_the_first_and_the_last_port_are_ports(tmp_path: Path, port: int) -> None:
    rule = one(tmp_path, NETWORK, f"selection:\n    DestinationPort: {port}\ncondition: selection")
    address = {"sa_family": "AF_INET", "sin_addr": "10.0.0.2", "sin_port": str(port)}
    assert matches(rule, "security_socket_connect", remote_addr=address)
