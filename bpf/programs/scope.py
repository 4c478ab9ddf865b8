"""Scope expressions: which processes are traced. The kernel decides this before it reads anything else.

An expression is `KEY OP VALUE[,VALUE...]` or a flag (`new`, `follow`). Expressions are ANDed, the values of one
expression are ORed. They become one C condition that is compiled into the programs (bpf/c/scope.h), so evaluating a
scope costs only the comparisons.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.bpf.host.mounts import file_device
from headrace.bpf.tables.catalogue import did_you_mean
from headrace.bpf.tables.ranges import Range

EXPRESSION = re.compile(r"^\s*([a-z_]+)\s*(!=|<=|>=|=|<|>)\s*(.+?)\s*$")
NUMBERS = {
    "pid": ("s->tgid", 2**22 - 1),
    "tid": ("s->tid", 2**22 - 1),
    "uid": ("task_uid(s->task)", 2**32 - 1),
    "gid": ("task_gid(s->task)", 2**32 - 1),
    "mntns": ("task_mntns(s->task)", 2**32 - 1),
    "pidns": ("task_pidns(s->task)", 2**32 - 1),
}
"""Key -> (C accessor, largest value)."""
STRINGS = ("comm", "uts", "exe", "cgroup")
FLAGS = ("new", "follow", "container")
SPELLINGS = {"not-container": "!container", "pid=new": "new", "p=new": "new", "pid!=new": "!new", "p!=new": "!new"}
"""Other spellings of flags, from Tracee."""
KEYS = {
    "pid": "process id on the host (thread group)",
    "tid": "thread id on the host",
    "uid": "real user, by id or name",
    "gid": "real group, by id or name",
    "mntns": "mount namespace, by inode number",
    "pidns": "pid namespace, by inode number",
    "comm": "name of the task, at most 15 bytes; NAME* for names that begin so",
    "exe": "executable, by path: the file at that path when headrace starts",
    "uts": "host name in the UTS namespace",
    "cgroup": "cgroup v2: a path below its mount (and all beneath it), or an id",
    "container": "in a container: any, `new`, `started`, or by the beginning of its id; !container: the host",
    "tree": "a process and all that descend from it",
    "new": "processes started after headrace",
    "follow": "also children of matching processes, even after those have ended",
}


ACCOUNTS = {"uid": "user", "gid": "group"}
SPAN = re.compile("([0-9]{1,20})-([0-9]{1,20})")


class ScopeError(Exception):
    """A scope expression is malformed, contradictory, or can never match."""


@dataclass(frozen=True)
class Scope:
    """A parsed scope. `condition` is C over `const struct subject *s`. `container` is C over container map entries
    (`k`: of the control group, `root`: of the container itself; both 0 on the host), or "" if no term is about
    containers.
    """

    condition: str = "true"
    container: str = ""
    trees: tuple[int, ...] = ()
    excluded_trees: tuple[int, ...] = ()
    pids: tuple[int, ...] = ()
    follow: bool = False
    texts: tuple[str, ...] = ()

    @property
    def names_processes(self) -> bool:
        """Whether the scope ends when the processes that it names have exited."""
        return bool(self.trees or self.pids)

    def c_source(self) -> str:
        """The function that scope.h expects at SCOPE_TERMS."""
        return f"static __always_inline bool scope_terms(const struct subject *s)\n{{\n\treturn {self.condition};\n}}\n"

    def c_container(self) -> str:
        """The function that scope.h expects at SCOPE_CONTAINER; "" if no term is about containers."""
        if not self.container:
            return ""
        head = "bool scope_container(const struct container *k, const struct container *root)"
        return f"#define SCOPE_CONTAINERS 1\nstatic __always_inline {head}\n{{\n\treturn {self.container};\n}}\n"


def _account(key: str, name: str) -> int | None:
    """The id of a user or group of this host; None if there is none."""
    with contextlib.suppress(KeyError, ValueError):  # a NUL byte, or one that is no text
        return pwd.getpwnam(name).pw_uid if key == "uid" else grp.getgrnam(name).gr_gid
    return None


def _number(key: str, text: str, largest: int) -> int:
    if key in ACCOUNTS and not text[:1].isdigit():
        found = _account(key, text)
        if found is None:
            known = [entry[0] for entry in (pwd.getpwall() if key == "uid" else grp.getgrall())]
            raise ScopeError(f"scope {key}: this host has no {ACCOUNTS[key]} {text}" + did_you_mean(text, known))
        return found
    if not re.fullmatch("[0-9]{1,20}", text):
        raise ScopeError(f"scope {key}: {text!r} is not a number")
    if int(text) > largest:
        raise ScopeError(f"scope {key}: {text} can never match (the largest is {largest})")
    return int(text)


def _alive(key: str, pid: int, proc: Path) -> None:
    if not (proc / str(pid)).exists():
        raise ScopeError(f"scope {key}={pid}: no such process")


def _quote(data: bytes) -> str:
    return '"' + "".join(f'\\x{b:02x}" "' for b in data) + '"'


def _comm(value: str) -> str:
    data = os.fsencode(value)
    glob = data.endswith(b"*")
    if any(mark in data.removesuffix(b"*") for mark in b"*?["):
        raise ScopeError(f"scope comm: {value!r}: a * can stand at the end only, such as python*")
    if len(data.removesuffix(b"*")) > 15:
        raise ScopeError(f"scope comm: {value!r} can never match (a task's name has at most 15 bytes)")
    if glob:
        data = data[:-1]
        parts = [(data[i : i + 8], (1 << 8 * len(data[i : i + 8])) - 1) for i in (0, 8)]
        words_and_masks = (f"{int.from_bytes(part, 'little')}ULL, {mask}ULL" for part, mask in parts)
        return f"task_comm_begins(s->task, {', '.join(words_and_masks)})"
    words = data.ljust(16, b"\0")
    first, second = (int.from_bytes(words[i : i + 8], "little") for i in (0, 8))
    return f"task_comm_is(s->task, {first}ULL, {second}ULL)"


def _uts(value: str) -> str:
    data = os.fsencode(value)
    if len(data) > 64:
        raise ScopeError(f"scope uts: {value!r} can never match (a node name has at most 64 bytes)")
    data = (data + b"\0")[:64]
    return f"task_nodename_is(s->task, {_quote(data)}, {len(data)})"


def _exe(value: str) -> str:
    try:
        found = os.stat(value)
    except OSError as error:
        raise ScopeError(f"scope exe: {value}: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise ScopeError(f"scope exe: {value}: not a file that can be executed, nothing can match")
    return f"task_exe_is(s->task, {found.st_ino}ULL, {file_device(value)}U)"


def cgroup_root(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """Mount point of the cgroup v2 hierarchy, or None."""
    for line in mounts.read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _cgroup(value: str) -> str:
    if re.fullmatch("[0-9]{1,20}", value):
        return f"bpf_get_current_cgroup_id() == {_number('cgroup', value, 2**64 - 1)}ULL"
    root = cgroup_root()
    if root is None:
        raise ScopeError("scope cgroup: this host has no cgroup v2 mount")
    path = root / value.removeprefix(str(root)).lstrip("/")
    try:
        identity = path.stat().st_ino
    except OSError as error:
        raise ScopeError(f"scope cgroup: {path}: {error.strerror}") from error
    level = len(path.relative_to(root).parts)
    return f"task_in_cgroup(s->task, {level}, {identity}ULL)"


def _container(value: str) -> str:
    if value == "new":
        return "(root && root->state != CONTAINER_EXISTING)"
    if value == "started":
        return "(root && root->state != CONTAINER_CREATED)"
    data = os.fsencode(value)
    by_digits = re.fullmatch("[0-9a-f]{1,64}", value)
    of_task = re.fullmatch("([0-9a-f]{32})-([0-9]{0,16})", value)
    if not by_digits and not of_task and not 0 < len(data) <= 32:
        raise ScopeError(f"scope container: {value!r} is neither new, started, nor the beginning of a container's id")
    # any value can be the prefix of a name that is an id, including one that looks like digits
    either = [f"k->runtime >= RUNTIME_LXC && {_id_begins(data.hex())}"] if len(data) <= 32 else []
    if of_task:
        either.append(f"k->runtime == RUNTIME_ECS && {_id_begins(of_task[1] + of_task[2].encode().hex())}")
    if by_digits:
        either.append(f"k->runtime == RUNTIME_ECS && {_id_begins(value[:32])}")
        either.append(f"k->runtime < RUNTIME_LXC && {_id_begins(value)}")
    return f"(k && ({' || '.join(f'({each})' for each in either)}))"


def _id_begins(digits: str) -> str:
    """C: whether the bytes of an id begin with these hexadecimal digits."""
    terms = []
    for i in range(0, len(digits), 16):
        part = digits[i : i + 16]
        word, mask = (int.from_bytes(bytes.fromhex(text.ljust(16, "0")), "little") for text in (part, "f" * len(part)))
        terms.append(f"(*(u64 *)(k->id + {i // 2}) & {mask}ULL) == {word}ULL")
    return " && ".join(terms)


_TERMS = {"comm": _comm, "uts": _uts, "exe": _exe, "cgroup": _cgroup}


class _Builder:
    """Collects expressions and detects contradictions between them."""

    def __init__(self, proc: Path, now_ns: int) -> None:
        self.proc, self.now_ns = proc, now_ns
        self.terms: list[str] = []
        self.ranges: dict[str, Range] = {}
        self.strings: dict[str, set[str]] = {}
        self.unwanted: dict[str, set[str]] = {}
        self.trees: list[int] = []
        self.excluded: list[int] = []
        self.pids: list[int] = []
        self.flags: dict[str, bool] = {}
        self.containers: list[str] = []
        self.inside = False
        """Whether only containers can match."""

    def container(self, op: str, values: list[str]) -> None:
        if op not in ("=", "!="):
            raise ScopeError(f"scope container takes = or !=, not {op}")
        if op == "=" and self.flags.get("container") is False:
            raise ScopeError("scope container: the host alone is asked for, nothing can match")
        self.inside |= op == "="
        either = " || ".join(_container(v) for v in values)
        self.containers.append(f"({either})" if op == "=" else f"!({either})")

    def flag(self, name: str, wanted: bool) -> None:
        if self.flags.setdefault(name, wanted) != wanted:
            raise ScopeError(f"scope {name} and !{name} contradict each other")
        if name == "new":
            start = (
                "KREAD(u64, KREAD(u64, s->task + KERNEL_task_struct_group_leader) + KERNEL_task_struct_start_boottime)"
            )
            self.terms.append(f"({start} {'>=' if wanted else '<'} {self.now_ns}ULL)")
        if name == "container":
            if not wanted and self.inside:
                raise ScopeError("scope !container: a container is asked for as well, nothing can match")
            self.containers.append("k != 0" if wanted else "k == 0")

    def tree(self, op: str, pids: list[int]) -> None:
        for pid in pids:
            _alive("tree", pid, self.proc)
        (self.trees if op == "=" else self.excluded).extend(pids)

    def numbers(self, key: str, op: str, values: list[int]) -> None:
        accessor, _ = NUMBERS[key]
        if op in ("<", "<=", ">", ">=") and len(values) > 1:
            raise ScopeError(f"scope {key}{op} takes one value")
        span = self.ranges.setdefault(key, Range(high=NUMBERS[key][1]))
        span.narrow(op, values)
        if span.empty:
            raise ScopeError(f"scope {key}: the expressions contradict each other, nothing can match")
        if key in ("pid", "tid") and op == "=":
            for pid in values:
                _alive(key, pid, self.proc)
            self.pids.extend(values if key == "pid" else ())
        compare, joint = ("==", " || ") if op == "=" else (op, " && ")
        self.terms.append("(" + joint.join(f"{accessor} {compare} {v}U" for v in values) + ")")

    def span(self, key: str, op: str, low: int, high: int) -> None:
        """`uid=1000-2000`, both included."""
        if op != "=" or low > high:
            raise ScopeError(f"scope {key}: a range is written {key}=LOW-HIGH")
        self.numbers(key, ">=", [low])
        self.numbers(key, "<=", [high])

    def text(self, key: str, op: str, values: list[str]) -> None:
        if op not in ("=", "!="):
            raise ScopeError(f"scope {key} takes = or !=, not {op}")
        if op == "!=":
            self.unwanted.setdefault(key, set()).update(values)
        else:
            self.strings[key] = set(values) & self.strings.get(key, set(values))
        if key in self.strings and not self.strings[key] - self.unwanted.get(key, set()):
            raise ScopeError(f"scope {key}: the expressions contradict each other, nothing can match")
        either = " || ".join(_TERMS[key](v) for v in values)
        self.terms.append(f"({either})" if op == "=" else f"!({either})")

    def add(self, text: str) -> None:
        text = SPELLINGS.get(text.strip(), text)
        if text.lstrip("!") in FLAGS:
            return self.flag(text.lstrip("!"), not text.startswith("!"))
        match = EXPRESSION.match(text)
        if match is None:
            raise ScopeError(f"scope {text!r}: expected KEY=VALUE or a flag" + did_you_mean(text, KEYS))
        key, op, values = match[1], match[2], [v.strip() for v in match[3].split(",") if v.strip()]
        if not values:
            raise ScopeError(f"scope {text!r}: a value is missing")
        if key in NUMBERS:
            span = SPAN.fullmatch(values[0]) if len(values) == 1 else None
            if span:
                return self.span(key, op, *(_number(key, v, NUMBERS[key][1]) for v in span.groups()))
            return self.numbers(key, op, [_number(key, v, NUMBERS[key][1]) for v in values])
        if key == "tree":
            if op not in ("=", "!="):
                raise ScopeError(f"scope tree takes = or !=, not {op}")
            return self.tree(op, [_number(key, v, 2**22 - 1) for v in values])
        if key == "container":
            return self.container(op, values)
        if key in _TERMS:
            return self.text(key, op, values)
        if key in ("event", "set"):
            raise ScopeError(f"scope {text!r}: events are selected by --events: -e {','.join(values)}")
        raise ScopeError(f"no such scope: {key}" + did_you_mean(key, KEYS))


def _check_command(builder: _Builder) -> None:
    """Raises ScopeError for expressions that match nothing of a command, whose tree is traced from its exec on."""
    if builder.trees:
        raise ScopeError("scope tree: with a COMMAND it is its own tree that is traced")
    if builder.flags.get("new") is False:
        raise ScopeError("scope !new: a COMMAND is new, nothing can match")
    for key in ("pid", "tid"):
        if key in builder.ranges and builder.ranges[key].one_of is not None:
            raise ScopeError(f"scope {key}: with a COMMAND a process that runs already cannot match")


def parse(expressions: Sequence[str], now_ns: int, command: bool = False, proc: Path = Path("/proc")) -> Scope:
    """The scope that `expressions` describe. Raises ScopeError with the reason if one is invalid.

    `now_ns` (CLOCK_BOOTTIME) is the time that `new` compares with. `command` adds the tree of the traced command.
    """
    builder = _Builder(proc, now_ns)
    for text in expressions:
        builder.add(text)
    if set(builder.trees) & set(builder.excluded):
        raise ScopeError("scope tree: a tree is both asked for and excluded, nothing can match")
    if command:
        _check_command(builder)
    terms = list(builder.terms)
    if builder.containers:
        terms.append("container_in_scope(s->task)")
    if builder.trees or command:
        terms.insert(0, "(s->flags & GROUP_TREE)")
    if builder.excluded:
        terms.insert(0, "!(s->flags & GROUP_NOT_TREE)")
    return Scope(
        condition=" && ".join(terms) or "true",
        container=" && ".join(builder.containers),
        trees=tuple(builder.trees),
        excluded_trees=tuple(builder.excluded),
        pids=tuple(builder.pids),
        follow=builder.flags.get("follow", False),
        texts=tuple(expressions),
    )
