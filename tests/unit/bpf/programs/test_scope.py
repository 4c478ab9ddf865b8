"""Scopes: what an expression means, and what is said about one that means nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.bpf.programs.scope import KEYS, Scope, parse, policy_trees, with_policies
from headrace.bpf.programs.terms import ScopeError, cgroup_root

NOW = 123_456_789


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc where processes 1, 7 and 8 live."""
    for pid in (1, 7, 8):
        (tmp_path / str(pid)).mkdir()
    return tmp_path


def refused(proc: Path, *expressions: str) -> str:
    with pytest.raises(ScopeError) as raised:
        parse(expressions, NOW, proc=proc)
    return str(raised.value)


def test_no_expression_is_everything(proc: Path) -> None:
    assert parse([], NOW, proc=proc).condition == "true"


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("uid=0", "(task_uid(s->task) == 0U)"),
        ("uid=0,33", "(task_uid(s->task) == 0U || task_uid(s->task) == 33U)"),
        ("uid!=0,33", "(task_uid(s->task) != 0U && task_uid(s->task) != 33U)"),
        ("uid>=1000", "(task_uid(s->task) >= 1000U)"),
        ("tid<5", "(s->tid < 5U)"),
        ("pid=7", "(s->tgid == 7U)"),
        (" mntns = 4026531840 ", "(task_mntns(s->task) == 4026531840U)"),
        ("pidns!=1", "(task_pidns(s->task) != 1U)"),
    ],
)
def test_numbers_become_comparisons(proc: Path, text: str, condition: str) -> None:
    assert parse([text], NOW, proc=proc).condition == condition


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("uid=root", "(task_uid(s->task) == 0U)"),
        ("uid!=root,www-data", "(task_uid(s->task) != 0U && task_uid(s->task) != 33U)"),
        ("gid=www-data", "(task_gid(s->task) == 33U)"),
        ("uid=1000-2000", "(task_uid(s->task) >= 1000U) && (task_uid(s->task) <= 2000U)"),
        ("gid=5", "(task_gid(s->task) == 5U)"),
    ],
)
def test_accounts_by_name_and_ranges(proc: Path, text: str, condition: str) -> None:
    assert parse([text], NOW, proc=proc).condition == condition


def test_names_that_begin_with_a_text(proc: Path) -> None:
    first = int.from_bytes(b"python", "little")
    assert parse(["comm=python*"], NOW, proc=proc).condition == (
        f"(task_comm_begins(s->task, {first:#x}ULL, {2**48 - 1:#x}ULL, 0x0ULL, 0x0ULL))"
    )
    condition = parse(["comm=systemd-journal*"], NOW, proc=proc).condition
    assert f"{2**64 - 1:#x}ULL, {int.from_bytes(b'journal', 'little'):#x}ULL, {2**56 - 1:#x}ULL" in condition


def test_the_parts_of_a_glob_are_sought_in_order(proc: Path) -> None:
    condition = parse(["comm=a*b?*c"], NOW, proc=proc).condition
    steps = re.findall(r", (true|false), (true|false), (\d), (0x\w+), (0x\w+),", condition)
    assert steps == [
        ("false", "false", "1", "0x61ULL", "0xffULL"),
        ("true", "false", "2", "0x62ULL", "0xffULL"),
        ("true", "true", "1", "0x63ULL", "0xffULL"),
    ]


def test_globs_of_policies_are_evaluated_once(proc: Path) -> None:
    span = with_policies(Scope(), [["comm=a*b"], ["comm=*c"], ["comm=a*b", "uid=0"], ["comm=plain*"]], NOW)
    assert span.globs == (b"a*b", b"*c")
    source = span.c_source()
    assert source.count("globs |= ") == 2
    assert "((globs & 0x1ULL)) && (task_uid(s->task) == 0U)" in source
    with pytest.raises(ScopeError, match="64 different globs"):
        with_policies(Scope(), [[f"comm=*x{i}y*"] for i in range(65)], NOW)


def test_policies_have_a_bit_each(proc: Path) -> None:
    span = with_policies(parse(["uid=0"], NOW, proc=proc), [["gid=1"], ["container", "follow"], []], NOW)
    source = span.c_source()
    assert "if ((task_gid(s->task) == 1U))\n\t\t*found |= 0x1ULL;" in source
    assert "if (true)\n\t\t*found |= 0x2ULL;" in source
    assert "#define POLICY_CONTAINERS 0x2ULL" in span.c_container()
    assert span.defines() == {"POLICIES": 1, "POLICY_GROUPS": 1, "POLICY_FOLLOW": 2}
    assert list(policy_trees(span)) == []
    assert "policy" not in parse(["uid=0"], NOW, proc=proc).c_source()


def test_the_trees_of_policies(proc: Path) -> None:
    one, other = os.getpid(), os.getppid()
    span = with_policies(Scope(), [[f"tree={one}"], [f"tree!={other}"]], NOW)
    assert list(policy_trees(span)) == [(one, 0, False), (other, 1, True)]
    assert "in_policy_tree(0x1ULL)" in span.c_source()
    assert "!in_other_tree(0x2ULL)" in span.c_source()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uid=rot", "scope uid: this host has no user rot; did you mean root?"),
        ("gid=no-such-group-here", "scope gid: this host has no group no-such-group-here"),
        ("uid=20-10", "scope uid: a range is written uid=LOW-HIGH"),
        ("uid!=10-20", "scope uid: a range is written uid=LOW-HIGH"),
        ("uid=5-99999999999", "can never match"),
        ("comm=[ab]", "a name takes * and ?, and no [...]"),
        ("comm=abcdefghijklmnop*", "can never match"),
        ("event=openat", "events are selected by --events: -e openat"),
        ("set=fs,net", "events are selected by --events: -e fs,net"),
    ],
)
def test_what_is_said_of_accounts_ranges_and_events(proc: Path, text: str, says: str) -> None:
    assert says in refused(proc, text)


def test_expressions_are_anded(proc: Path) -> None:
    condition = parse(["uid=0", "tid!=9"], NOW, proc=proc).condition
    assert condition == "(task_uid(s->task) == 0U) && (s->tid != 9U)"


def test_comm_compares_the_sixteen_bytes_of_the_task(proc: Path) -> None:
    first, second = (int.from_bytes(part, "little") for part in (b"systemd-", b"journal\0"))
    condition = parse(["comm=systemd-journal"], NOW, proc=proc).condition
    assert f"task_comm_is(s->task, {first}ULL, {second}ULL)" in condition


def test_comm_of_fifteen_bytes_is_the_longest_that_can_match(proc: Path) -> None:
    # TASK_COMM_LEN is 16 with the NUL
    parse(["comm=" + "c" * 15], NOW, proc=proc)
    assert "can never match" in refused(proc, "comm=" + "c" * 16)
    # bytes count, not letters
    assert "can never match" in refused(proc, "comm=" + "é" * 8)


def test_uts_of_64_bytes_is_the_longest_that_can_match(proc: Path) -> None:
    # __NEW_UTS_LEN, include/uapi/linux/utsname.h; sethostname() takes 64 bytes
    assert "can never match" in refused(proc, "uts=" + "h" * 65)
    parse(["uts=" + "h" * 64], NOW, proc=proc)


def test_text_cannot_leave_its_c_literal(proc: Path) -> None:
    condition = parse(['uts=";}#'], NOW, proc=proc).condition
    literal = re.search(r"task_nodename_is\(s->task, (.*), (\d+)\)", condition)
    assert literal is not None
    found = bytes(int(pair, 16) for pair in re.findall(r"\\x([0-9a-f]{2})", literal[1]))
    assert (found, int(literal[2])) == (b'";}#\0', 5)
    assert '";}' not in condition


def test_exe_is_its_inode_and_device(proc: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.touch()
    stat = program.stat()
    condition = parse([f"exe={program}"], NOW, proc=proc).condition
    # dev_t inside the kernel: 12 bits major, 20 bits minor (include/linux/kdev_t.h)
    device = os.major(stat.st_dev) << 20 | os.minor(stat.st_dev)
    assert f"{stat.st_ino}ULL, {device}U" in condition


def test_exe_that_is_not_there_is_named(proc: Path) -> None:
    assert refused(proc, "exe=/nonexistent/x") == "scope exe: /nonexistent/x: No such file or directory"


def test_cgroup_by_id_compares_the_id(proc: Path) -> None:
    assert "bpf_get_current_cgroup_id() == 42ULL" in parse(["cgroup=42"], NOW, proc=proc).condition


def test_a_containers_name_that_is_no_text_is_compared_by_its_bytes(proc: Path) -> None:
    found = parse([os.fsdecode(b"container=x\xff")], NOW, proc=proc)
    assert f"(k->id + 0) & 65535ULL) == {0xFF78}ULL" in found.container  # 'x' is 0x78


def test_cgroup_root_is_the_v2_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert cgroup_root(mounts) == Path("/sys/fs/cgroup")
    mounts.write_text("proc /proc proc rw 0 0\n")
    assert cgroup_root(mounts) is None


def test_new_compares_the_start_time(proc: Path) -> None:
    assert f">= {NOW}ULL" in parse(["new"], NOW, proc=proc).condition
    assert f"< {NOW}ULL" in parse(["!new"], NOW, proc=proc).condition


def test_tracees_pid_new_is_new(proc: Path) -> None:
    for spelling in ("pid=new", "p=new"):
        assert parse([spelling], NOW, proc=proc).condition == parse(["new"], NOW, proc=proc).condition


def test_trees_are_handed_to_the_loader(proc: Path) -> None:
    found = parse(["tree=7,8", "tree!=1"], NOW, proc=proc)
    assert (found.trees, found.excluded_trees) == ((7, 8), (1,))
    assert found.condition == "!(s->flags & GROUP_NOT_TREE) && (s->flags & GROUP_TREE)"
    assert found.names_processes


def test_a_command_is_a_tree(proc: Path) -> None:
    assert parse([], NOW, command=True, proc=proc).condition == "(s->flags & GROUP_TREE)"


def test_follow_is_a_switch(proc: Path) -> None:
    assert parse(["comm=sh", "follow"], NOW, proc=proc).follow
    assert not parse(["comm=sh"], NOW, proc=proc).follow


@pytest.mark.parametrize("key", ["pid", "tree"])
def test_a_process_that_is_gone_is_named(proc: Path, key: str) -> None:
    assert refused(proc, f"{key}=9") == f"scope {key}=9: no such process"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ui=0", "uid"),
        ("com=sh", "comm"),
        ("mntsn=1", "mntns"),
        ("tre=1", "tree"),
        ("folow", "follow"),
        ("pidd=1", "pid"),
    ],
)
def test_a_misspelt_key_gets_a_suggestion(proc: Path, text: str, hint: str) -> None:
    assert f"did you mean {hint}?" in refused(proc, text)


def test_a_value_that_is_no_number_is_named(proc: Path) -> None:
    assert "'root' is not a number" in refused(proc, "pid=root")


@pytest.mark.parametrize("text", ["uid=4294967296", "pid=4194305", "mntns=4294967296", "cgroup=18446744073709551616"])
def test_a_number_that_no_task_can_have_can_never_match(proc: Path, text: str) -> None:
    assert "can never match" in refused(proc, text)


@pytest.mark.parametrize(
    "expressions",
    [
        ("uid=0", "uid=1"),
        ("uid=0", "uid!=0"),
        ("uid<5", "uid>5"),
        ("uid<0",),
        ("uid=3", "uid>=4"),
        ("comm=sh", "comm=ls"),
        ("new", "!new"),
        ("tree=7", "tree!=7"),
        ("comm=sh", "comm!=sh"),
        ("uid>=5", "uid<=5", "uid!=5"),
    ],
)
def test_contradictions_are_refused(proc: Path, expressions: tuple[str, ...]) -> None:
    assert re.search("contradict|nothing can match", refused(proc, *expressions))


def test_an_order_takes_one_value(proc: Path) -> None:
    assert "takes one value" in refused(proc, "uid<1,2")


@pytest.mark.parametrize("text", ["comm<sh", "uts>a", "tree>=7"])
def test_text_and_trees_have_no_order(proc: Path, text: str) -> None:
    assert "takes = or !=" in refused(proc, text)


@pytest.mark.parametrize("text", ["uid=,", "uid!=,", "uid<,", "comm!=,", "tree=,", "tree!=,", "exe!=,", "cgroup!=,"])
def test_an_expression_without_a_value_is_refused(proc: Path, text: str) -> None:
    assert refused(proc, text)


ANY = st.builds(
    "{}{}{}".format,
    st.sampled_from([*KEYS, "p", "x", ""]),
    st.sampled_from(["=", "!=", "<", ">=", "", " = "]),
    st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=6) | st.integers(-1, 2**33).map(str),
)


@given(st.lists(ANY | st.text(max_size=8), max_size=3))
@example(["uid=²"])
@example(["cgroup=²"])
@example(["uid!=,"])
def test_anything_is_a_scope_or_a_scope_error(expressions: list[str]) -> None:
    try:
        found = parse(expressions, NOW, proc=Path("/nonexistent"))
    except ScopeError:
        return
    assert isinstance(found, Scope)
    assert "()" not in found.condition.replace("cgroup_id()", "")
    assert found.condition.isascii()
