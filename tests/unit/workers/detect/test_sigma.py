"""Sigma rules: what becomes of them, and what they match."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from bpf.catalogue import catalogue
from config.rules import Rule
from workers.detect.flat import FlatRules, of_example
from workers.detect.rulesets import coverage
from workers.detect.sigma_rules import load_sigma

ID = "00000000-0000-4000-8000-000000000001"


def loaded(
    folder: Path, source: str, detection: str, keywords: bool = False, **more: str
) -> tuple[list[Rule], list[str]]:
    facts = {"title": "A rule", "id": ID, "level": "high", "status": "test"} | more
    text = "".join(f"{key}: {value}\n" for key, value in facts.items())
    text += f"logsource:\n{textwrap.indent(textwrap.dedent(source), '    ')}\n"
    text += f"detection:\n{textwrap.indent(textwrap.dedent(detection), '    ')}\n"
    (folder / "rule.yml").write_text(text)
    rules, refused = load_sigma([folder], catalogue(), keywords)
    return rules, [str(error) for error in refused]


def one(folder: Path, source: str, detection: str, **more: Any) -> Rule:
    rules, refused = loaded(folder, source, detection, **more)
    assert refused == []
    return rules[0]


def matches(rule: Rule, event: str, **args: Any) -> bool:
    given = {"event": event, "args": {k: v for k, v in args.items() if k not in ("process", "parent", "retval")}}
    given |= {k: args[k] for k in ("process", "parent", "retval") if k in args}
    if event not in rule.events:
        return False
    return FlatRules().verdict(rule.events[event], of_example(given, catalogue())) is True


def ran(rule: Rule, path: str, *argv: str, **more: Any) -> bool:
    values = {"pathname": path, "interp": path, "pwd": "/root", "argv": list(argv)} | more
    return matches(rule, "sched_process_exec", **values)


PROCESS = "product: linux\ncategory: process_creation"
AUDIT = "product: linux\nservice: auditd"


def test_an_image_is_the_file_and_the_path_that_it_was_started_by(tmp_path: Path) -> None:
    rule = one(tmp_path, PROCESS, "selection:\n    Image|endswith: /wget\ncondition: selection")
    assert ran(rule, "/usr/bin/busybox", "wget", interp="/usr/bin/wget")
    assert ran(rule, "/usr/bin/busybox", "wget", interp="./wget", pwd="/usr/bin")
    assert ran(rule, "/usr/bin/WGET", "x")
    assert not ran(rule, "/usr/bin/busybox", "wget", interp="/usr/bin/ls")
    negated = one(
        tmp_path, PROCESS, "s:\n    CommandLine|contains: x\nf:\n    Image|endswith: /wget\ncondition: s and not f"
    )
    assert ran(negated, "/usr/bin/ls", "x")
    assert not ran(negated, "/usr/bin/busybox", "x", interp="/usr/bin/wget")


def test_a_command_line_is_argv_with_single_spaces(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        PROCESS,
        "selection:\n    CommandLine|contains|all:\n        - ' -x '\n        - B\ncondition: selection",
    )
    assert ran(rule, "/bin/a", "a", "-x", "b")
    assert not ran(rule, "/bin/a", "a", "-x")


def test_regular_expressions_are_with_case_and_not_anchored(tmp_path: Path) -> None:
    rule = one(tmp_path, PROCESS, "selection:\n    CommandLine|re: 'b[0-9]+C'\ncondition: selection")
    assert ran(rule, "/bin/a", "ab12Cd")
    assert not ran(rule, "/bin/a", "ab12cd")


def test_plain_values_have_wildcards_and_no_case(tmp_path: Path) -> None:
    rule = one(tmp_path, PROCESS, r"selection:" + "\n    CommandLine: 'A*b?\\*'\ncondition: selection")
    assert ran(rule, "/bin/a", "axxBc*")
    assert not ran(rule, "/bin/a", "axxBcc")


def test_a_selection_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        PROCESS,
        """
        selection:
            Image|endswith: /cat
        filter_main_x.conf:
            CommandLine|contains: x.conf
        condition: selection and not 1 of filter_main_*
        """,
    )
    assert ran(rule, "/bin/cat", "cat", "y")
    assert not ran(rule, "/bin/cat", "cat", "x.conf")


def test_a_field_that_could_not_be_read_does_not_match_and_excuses_nothing(tmp_path: Path) -> None:
    detection = "s:\n    Image|endswith: /x\nf:\n    ParentImage|endswith: /y\ncondition: s and not f"
    rule = one(tmp_path, PROCESS, detection)
    assert ran(rule, "/bin/x", "x")
    assert ran(rule, "/bin/x", "x", parent={"image": "/bin/z"})
    assert not ran(rule, "/bin/x", "x", parent={"image": "/bin/y"})


def test_the_login_is_compared_as_number_or_text(tmp_path: Path) -> None:
    for value in ("0", "'0'", "4294967295"):
        rule = one(tmp_path, PROCESS, f"selection:\n    LogonId: {value}\ncondition: selection")
        assert ran(rule, "/bin/x", "x", process={"login_uid": int(value.strip("'"))})
        assert not ran(rule, "/bin/x", "x", process={"login_uid": 5})


def test_what_becomes_of_a_name(tmp_path: Path) -> None:
    def rule(kind: str, more: str = "") -> Rule:
        selection = f"selection:\n    type: PATH\n    nametype: {kind}\n    name: /etc/x\n"
        where = f"condition: selection{' and call' if more else ''}"
        return one(tmp_path, "product: linux\nservice: auditd", selection + more + where)

    opened = {"pathname": "/etc/x", "flags": "O_WRONLY|O_CREAT"}
    for created, flags, kind in (
        (True, "O_WRONLY|O_CREAT", "CREATE"),
        (False, "O_WRONLY|O_CREAT", "NORMAL"),
        (None, "O_WRONLY|O_CREAT", "CREATE"),
        (None, "O_WRONLY", "NORMAL"),
    ):
        args = opened | {"flags": flags} | ({} if created is None else {"created": created})
        for each in ("CREATE", "NORMAL"):
            assert matches(rule(each), "security_file_open", **args) == (each == kind)
    call = "call:\n    type: SYSCALL\n    syscall: rename\n"
    assert matches(rule("CREATE", call), "rename", oldpath="/a", newpath="/etc/x")
    assert matches(rule("DELETE", call), "rename", oldpath="/etc/x", newpath="/a")
    assert not matches(rule("NORMAL", call), "rename", oldpath="/etc/x", newpath="/etc/x")


def test_files_that_are_made_or_written(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        "product: linux\ncategory: file_event",
        "selection:\n    TargetFilename|startswith: /etc/x\ncondition: selection",
    )
    for flags in ("O_WRONLY", "O_RDWR", "O_RDONLY|O_CREAT", "O_RDONLY|O_TRUNC"):
        assert matches(rule, "security_file_open", pathname="/etc/x1", flags=flags)
    assert not matches(rule, "security_file_open", pathname="/etc/x1", flags="O_RDONLY")
    assert matches(rule, "security_inode_rename", old_path="/a", new_path="/etc/x")
    assert matches(rule, "security_inode_symlink", linkpath="/etc/x", target="/a")
    assert matches(rule, "security_inode_link", old_path="/a", new_path="/etc/x")
    assert matches(rule, "security_inode_mknod", file_name="/etc/x")


def test_connections_and_networks(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        "product: linux\ncategory: network_connection",
        """
        selection:
            Initiated: 'true'
            DestinationPort: [4444, 5555]
        local:
            DestinationIp|cidr: 10.0.0.0/8
        condition: selection and not local
        """,
    )

    def connected(address: str, port: str, family: str = "AF_INET") -> bool:
        name = "sin_" if family == "AF_INET" else "sin6_"
        where = {"sa_family": family, f"{name}addr": address, f"{name}port": port}
        return matches(rule, "security_socket_connect", sockfd=3, remote_addr=where)

    assert connected("1.2.3.4", "4444")
    assert not connected("1.2.3.4", "4445")
    assert not connected("10.1.2.3", "4444")
    assert not connected("::ffff:10.1.2.3", "4444", "AF_INET6")
    none = one(
        tmp_path,
        "product: linux\ncategory: network_connection",
        "selection:\n    DestinationHostname: evil.example\ncondition: selection",
    )
    assert coverage(none, catalogue(), lambda e: "").word == "none"
    assert "DestinationHostname" in none.lacking


def test_conditions_of_one_selection_hold_within_one_record(tmp_path: Path) -> None:
    rule = one(
        tmp_path, AUDIT, "selection:\n    type: EXECVE\n    a0: cp\n    a1|startswith: '-'\ncondition: selection"
    )
    assert ran(rule, "/bin/cp", "cp", "-r")
    assert not ran(rule, "/bin/cp", "cp")
    # a0 of one record and the name of another
    mixed = one(tmp_path, AUDIT, "selection:\n    a0: cp\n    name: /bin/cp\ncondition: selection")
    assert mixed.lacking


def test_selections_combine_over_the_records_of_one_event(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        AUDIT,
        """
        args:
            type: EXECVE
            a0: x
        path:
            type: PATH
            name: ./x
        condition: args and path
        """,
    )
    assert ran(rule, "/tmp/x", "x", cmdpath="./x")
    assert not ran(rule, "/tmp/x", "x", cmdpath="/tmp/x")


def test_calls_that_a_rule_names(tmp_path: Path) -> None:
    rule = one(
        tmp_path,
        AUDIT,
        "selection:\n    type: SYSCALL\n    SYSCALL: personality\n    a0: 40000\ncondition: selection",
    )
    assert list(rule.events) == ["personality"]
    assert matches(rule, "personality", personality=0x40000)
    assert not matches(rule, "personality", personality=0x40001)


def test_keywords(tmp_path: Path) -> None:
    words = "type:\n    type: EXECVE\nwords:\n    - touch\ncondition: type and words"
    assert ran(one(tmp_path, AUDIT, words), "/bin/touch", "/bin/touch", "x")
    plain = "keywords:\n    - evil\ncondition: keywords"
    assert one(tmp_path, "product: linux", plain).lacking
    assert ran(one(tmp_path, "product: linux", plain, keywords=True), "/bin/x", "x", "EVIL")


def test_what_a_rule_says_of_itself_stays_with_it(tmp_path: Path) -> None:
    detection = "selection:\n    Image: /x\ncondition: selection"
    rule = one(tmp_path, PROCESS, detection, author="Somebody", tags="\n    - attack.execution\n    - attack.t1059.004")
    assert (rule.id, rule.title, rule.author, rule.level, rule.status) == (ID, "A rule", "Somebody", "high", "test")
    assert (rule.severity, rule.mitre.id, rule.mitre.tactic) == ("high", "T1059.004", "Execution")


@pytest.mark.parametrize(
    ("source", "detection", "why"),
    [
        ("product: windows\ncategory: process_creation", "selection:\n    Image: x\ncondition: selection", "windows"),
        (PROCESS, "selection:\n    CommandLine|re: '(?=x)'\ncondition: selection", "egular expression"),
        (PROCESS, "selection:\n    Image: x\ncondition: selection and other", "other"),
        (PROCESS, "selection:\n    Image|nothing: x\ncondition: selection", "nothing"),
        (PROCESS, "selection:\n    Image: x", "condition"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(tmp_path: Path, source: str, detection: str, why: str) -> None:
    rules, refused = loaded(tmp_path, source, detection)
    assert rules == []
    assert len(refused) == 1
    assert "rule.yml" in refused[0]
    assert why in refused[0]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"a: [", b"- 1\n- 2\n", b"&a [*a, *a]\n", b"just text"])
def test_files_that_are_no_rules(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.yml").write_bytes(data)
    rules, refused = load_sigma([tmp_path], catalogue())
    assert rules == []
    assert len(refused) == (1 if data else 0)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    _, refused = load_sigma([tmp_path / "nowhere"], catalogue())
    assert "No such file" in str(refused[0])
