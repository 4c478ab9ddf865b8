"""Sigma rules: what becomes of them, and what they match."""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.rules import Rule
from headrace.workers.detect.offline.flat import FlatRules, of_example
from headrace.workers.detect.rules.rulesets import coverage
from headrace.workers.detect.rules.sigma_files import load_sigma

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


def command(folder: Path, item: str) -> Rule:
    return one(folder, PROCESS, f"selection:\n    {item}\ncondition: selection")


def test_neq_is_not_equal(tmp_path: Path) -> None:
    rule = command(tmp_path, "Image|neq: [/bin/a, /bin/b]")
    assert ran(rule, "/bin/c", "x")
    assert not ran(rule, "/bin/a", "x")
    assert not ran(rule, "/bin/b", "x")
    port = one(
        tmp_path,
        "product: linux\ncategory: network_connection",
        "selection:\n    DestinationPort|neq: 22\ncondition: selection",
    )
    for number, fires in (("22", False), ("23", True)):
        where = {"sa_family": "AF_INET", "sin_addr": "1.2.3.4", "sin_port": number}
        assert matches(port, "security_socket_connect", sockfd=3, remote_addr=where) == fires


def test_a_dot_matches_a_newline_only_with_s(tmp_path: Path) -> None:
    assert not ran(command(tmp_path, "CommandLine|re: 'a.b|c.d'"), "/bin/x", "a\nb", "c\nd")
    assert ran(command(tmp_path, "CommandLine|re|s: 'a.b'"), "/bin/x", "a\nb")
    assert ran(command(tmp_path, "CommandLine|re|i|s: 'A.b'"), "/bin/x", "a\nB")
    assert ran(command(tmp_path, "CommandLine|re|m: '^b$'"), "/bin/x", "a\nb\nc")


def test_an_alternative_without_a_source_leaves_the_others(tmp_path: Path) -> None:
    rule = one(
        tmp_path, PROCESS, "selection:\n    - Image|endswith: /x\n    - Hashes|contains: y\ncondition: selection"
    )
    assert ran(rule, "/bin/x", "x")
    state = coverage(rule, catalogue(), lambda e: "")
    assert state.word == "partial"
    assert "Hashes" in state.reason


def test_values_that_modifiers_expand(tmp_path: Path) -> None:
    dashed = command(tmp_path, "CommandLine|windash|contains|all: [' -a', ' -b']")
    assert ran(dashed, "/bin/x", "x", "/a", "-b")
    assert not ran(dashed, "/bin/x", "x", "/a")
    encoded = command(tmp_path, "CommandLine|base64offset|contains: http://")
    for offset in range(3):
        given = base64.b64encode(b"_" * offset + b"http://evil").decode()
        assert ran(encoded, "/bin/x", "x", given)
    assert not ran(encoded, "/bin/x", "x", "http://evil")
    for modifier, codec in (("wide", "utf-16-le"), ("utf16le", "utf-16-le"), ("utf16be", "utf-16-be")):
        wide = command(tmp_path, f"CommandLine|{modifier}|base64offset|contains: Invoke")
        assert ran(wide, "/bin/x", "x", base64.b64encode("xInvoke-".encode(codec)).decode())
        assert not ran(wide, "/bin/x", "x", base64.b64encode(b"xInvoke-").decode())
    # the separators between readings are no part of the text
    assert command(tmp_path, "CommandLine|wide|contains: ab").lacking


PLACEHOLDERS = "vars:\n  admins: [root, 'adm*']\n  ports: 22\n"


def test_placeholders_have_the_values_that_a_file_beside_the_rules_gives_them(tmp_path: Path) -> None:
    (tmp_path / "values.yml").write_text(PLACEHOLDERS)
    rule = command(tmp_path, "CommandLine|endswith|expand: ' -u %admins%'")
    assert ran(rule, "/bin/x", "x", "-u", "root")
    assert ran(rule, "/bin/x", "x", "-u", "admin")
    assert not ran(rule, "/bin/x", "x", "-u", "%admins%")
    assert not ran(rule, "/bin/x", "x", "-u", "guest")
    # each value is an alternative, even where all of a list must be there
    both = command(tmp_path, "CommandLine|expand|contains|all: ['-u %admins%', '-p %ports%']")
    assert ran(both, "/bin/x", "x", "-u root", "-p 22")
    assert not ran(both, "/bin/x", "x", "-u root", "-u adm")
    pattern = command(tmp_path, "CommandLine|re|expand: '-p %ports%$'")
    assert ran(pattern, "/bin/x", "-p", "22")
    assert not ran(pattern, "/bin/x", "-p", "%ports%")


@pytest.mark.parametrize(
    ("pipeline", "why"),
    [
        ("vars: 3", "mapping"),
        ("vars: {a: {b: c}}", "texts or numbers"),
        ("vars: {a: []}", "texts or numbers"),
        ("vars: {a: b}\n---\nvars: {a: c}", "already"),
        ("vars: {a: b}\ntransformations: [{type: add_condition}]", "add_condition"),
        ("vars: {a: b}\npostprocessing: []", "postprocessing"),
    ],
)
def test_values_of_placeholders_that_are_none_are_refused(tmp_path: Path, pipeline: str, why: str) -> None:
    (tmp_path / "values.yml").write_text(pipeline)
    rules, refused = loaded(tmp_path, PROCESS, "selection:\n    Image: /x\ncondition: selection")
    assert len(rules) == 1
    assert len(refused) == 1
    assert "values.yml" in refused[0]
    assert why in refused[0]


@pytest.mark.parametrize(
    ("item", "path", "argv", "fires"),
    [
        ("CommandLine|fieldref: Image", "/bin/x", ["/bin/X"], True),
        ("CommandLine|fieldref: Image", "/bin/x", ["/bin/x", "y"], False),
        ("CommandLine|cased|fieldref: Image", "/bin/x", ["/bin/X"], False),
        ("CommandLine|fieldref|startswith: Image", "/bin/x", ["/bin/x", "y"], True),
        ("CommandLine|fieldref|endswith: Image", "/bin/x", ["y", "/bin/x"], True),
        ("CommandLine|fieldref|contains: Image", "/bin/x", ["y", "/bin/x", "z"], True),
        ("CommandLine|fieldref|contains: Image", "/bin/x", ["y"], False),
        ("CommandLine|neq|fieldref: Image", "/bin/x", ["y"], True),
        ("ProcessId|fieldref: ParentProcessId", "/bin/x", ["y"], True),
        ("CommandLine|fieldref: [ParentImage, Image]", "/bin/x", ["/bin/x"], True),
    ],
)
def test_a_field_is_compared_with_another_one(
    tmp_path: Path, item: str, path: str, argv: list[str], fires: bool
) -> None:
    rule = command(tmp_path, item)
    assert ran(rule, path, *argv, process={"pid": 7, "ppid": 7}) == fires
    assert coverage(rule, catalogue(), lambda e: "").word == "full"


def test_a_field_that_is_compared_with_what_nobody_has_is_dead(tmp_path: Path) -> None:
    assert "Hashes" in command(tmp_path, "CommandLine|fieldref: Hashes").lacking


def test_names_of_selections_may_have_dots_and_hyphens(tmp_path: Path) -> None:
    detection = """
        sel.image: {Image: /bin/x}
        sel.all-of.a: {CommandLine|contains: a}
        sel.all-of.b: {CommandLine|contains: b}
        selxall-ofxc: {CommandLine|contains: c}
        out.of: {Hashes|contains: x}
        condition: sel.image and all of sel.all-of.* or out.of
        """
    rule = one(tmp_path, PROCESS, detection)
    assert ran(rule, "/bin/x", "a", "b")
    assert not ran(rule, "/bin/x", "a")
    assert "out.of: " in coverage(rule, catalogue(), lambda e: "").reason


FILTER = """title: A filter
id: 00000000-0000-4000-8000-000000000009
logsource:
    product: linux
    category: process_creation
filter:
    rules: [{rule}]
    selection:
        CommandLine|contains: harmless
    condition: not selection
"""


def test_a_filter_in_another_file_is_applied_and_one_that_applies_to_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "filter.yml").write_text(FILTER.format(rule=ID))
    rule = command(tmp_path, "Image: /bin/x")
    assert ran(rule, "/bin/x", "x")
    assert not ran(rule, "/bin/x", "x", "harmless")
    (tmp_path / "filter.yml").write_text(FILTER.format(rule="00000000-0000-4000-8000-000000000002"))
    rules, refused = loaded(tmp_path, PROCESS, "selection:\n    Image: /bin/x\ncondition: selection")
    assert len(rules) == 1
    assert len(refused) == 1
    assert "filter.yml" in refused[0]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("CommandLine|expand: '%admins%'", "%admins%"),
        ("CommandLine|contains|expand: '%admins%'", "%admins%"),
        ("CommandLine|re|expand: 'a%admins%'", "%admins%"),
        ("CommandLine|expand|base64: '%admins%'", "base64 after expand"),
        ("CommandLine|hour: 3", "hour"),
        ("CommandLine|minute|gte: 3", "minute"),
        ("CommandLine|utf16|base64offset|contains: x", "utf16"),
        ('CommandLine: "a\\ud800b"', "surrogate"),
        ("LogonId|gt: 1000000000000000000000000000000", "64 bits"),
        ("LogonId|gt: .inf", ""),
        ("LogonId|gt: .nan", ""),
        ("ProcessId: {a: 1}", ""),
        ("CommandLine|re: '('", "egular expression"),
    ],
)
def test_one_bad_rule_is_refused_by_file_and_reason_and_the_rest_loads(tmp_path: Path, item: str, why: str) -> None:
    good = "title: Good\nlogsource: {product: linux, category: process_creation}\n"
    (tmp_path / "good.yml").write_text(good + "detection: {s: {Image: /x}, condition: s}\n")
    rules, refused = loaded(tmp_path, PROCESS, f"selection:\n    {item}\ncondition: selection")
    assert [rule.title for rule in rules] == ["Good"]
    assert len(refused) == 1
    assert "rule.yml" in refused[0]
    assert why in refused[0]


@pytest.mark.parametrize("condition", ["", "''", "[]", "{}", "3", "'1 of'", "'not'", "'('", "null"])
def test_a_condition_that_is_none_is_refused(tmp_path: Path, condition: str) -> None:
    rules, refused = loaded(tmp_path, PROCESS, f"selection:\n    Image: /x\ncondition: {condition}")
    assert rules == []
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("operator", "below", "above"),
    [("gt", False, True), ("gte", False, True), ("lt", True, False), ("lte", True, False)],
)
def test_fractions_compare_with_whole_numbers(tmp_path: Path, operator: str, below: bool, above: bool) -> None:
    rule = one(
        tmp_path,
        "product: linux\ncategory: network_connection",
        f"selection:\n    DestinationPort|{operator}: 79.5\ncondition: selection",
    )
    for number, fires in (("79", below), ("80", above)):
        where = {"sa_family": "AF_INET", "sin_addr": "1.2.3.4", "sin_port": number}
        assert matches(rule, "security_socket_connect", sockfd=3, remote_addr=where) == fires
