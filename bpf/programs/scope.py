"""Scope expressions: which processes are traced. The kernel decides this before it reads anything else.

An expression is `KEY OP VALUE[,VALUE...]` or a flag (`new`, `follow`). Expressions are ANDed, the values of one
expression are ORed. They become one C condition that is compiled into the programs (bpf/c/scope.h), so evaluating a
scope costs only the comparisons. The scopes of policies become one mask, with a bit for each.
"""

from __future__ import annotations

import contextlib
import grp
import pwd
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from headrace.bpf.programs.terms import (
    ScopeError,
    cgroup_term,
    comm_glob,
    comm_term,
    container_term,
    exe_term,
    number,
    uts_term,
)
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
    "comm": "name of the task, at most 15 bytes; with * and ?",
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
    globs: tuple[bytes, ...] = ()
    """Globs on names of tasks in the scopes of the policies, by number."""
    policies: tuple[Scope, ...] = ()
    """Scopes of policies, by bit. A task must be in one of them as well."""

    @property
    def names_processes(self) -> bool:
        """Whether the scope ends when the processes that it names have exited."""
        return bool(self.trees or self.pids)

    def c_source(self) -> str:
        """The functions that scope.h expects at SCOPE_TERMS."""
        source = _function("bool scope_terms(const struct subject *s)", f"\treturn {self.condition};\n")
        if self.policies:
            terms = [policy.condition for policy in self.policies]
            source += _function("u64 policy_terms(const struct subject *s)", self._c_globs() + _mask(terms))
        return source

    def _c_globs(self) -> str:
        """C: a bit for each glob that the name of the task matches. Without branches, before those of the conditions:
        the verifier would follow every combination.
        """
        if not self.globs:
            return ""
        found = "\tstruct comm_text t;\n\tu64 globs = 0;\n\tcomm_read(&t, s->task);\n"
        return found + "".join(f"\tglobs |= is_set({comm_glob(each)}) << {n};\n" for n, each in enumerate(self.globs))

    def c_container(self) -> str:
        """The functions that scope.h expects at SCOPE_CONTAINER; "" if no term is about containers."""
        source = ""
        arguments = "(const struct container *k, const struct container *root)"
        if self.container:
            source = "#define SCOPE_CONTAINERS 1\n"
            source += _function(f"bool scope_container{arguments}", f"\treturn {self.container};\n")
        if mask := sum(1 << bit for bit, policy in enumerate(self.policies) if policy.container):
            source += f"#define POLICY_CONTAINERS {mask:#x}ULL\n"
            terms = [policy.container or "false" for policy in self.policies]
            source += _function(f"u64 policy_containers{arguments}", _mask(terms))
        return source

    def defines(self) -> dict[str, int]:
        """Constants that scope.h and others expect, by name."""
        if not self.policies:
            return {}
        followed = sum(1 << bit for bit, policy in enumerate(self.policies) if policy.follow)
        found = {"POLICIES": 1}
        if followed or any(policy.trees or policy.excluded_trees for policy in self.policies):
            found |= {"POLICY_GROUPS": 1, "POLICY_FOLLOW": followed}
        return found


def _function(head: str, body: str) -> str:
    return f"static __always_inline {head}\n{{\n{body}}}\n"


def _mask(terms: Sequence[str]) -> str:
    """C: returns a mask of the conditions that hold. It is kept in a map: the verifier does not track values there, so
    its states do not multiply.
    """
    bits = "".join(f"\tif ({term})\n\t\t*found |= {1 << bit:#x}ULL;\n" for bit, term in enumerate(terms))
    begin = "\tvolatile u64 *found = policies_found();\n\tif (!found)\n\t\treturn 0;\n\t*found = 0;\n"
    return f"{begin}{bits}\treturn *found;\n"


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
    return number(key, text, largest)


def _alive(key: str, pid: int, proc: Path) -> None:
    if not (proc / str(pid)).exists():
        raise ScopeError(f"scope {key}={pid}: no such process")


_TERMS = {"comm": comm_term, "uts": uts_term, "exe": exe_term, "cgroup": cgroup_term}


class _Builder:
    """Collects expressions and detects contradictions between them."""

    def __init__(self, proc: Path, now_ns: int, globs: dict[bytes, int] | None) -> None:
        self.globs = globs
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
        either = " || ".join(container_term(v) for v in values)
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
        make = partial(comm_term, globs=self.globs) if key == "comm" else _TERMS[key]
        either = " || ".join(make(v) for v in values)
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


def parse(
    expressions: Sequence[str],
    now_ns: int,
    command: bool = False,
    proc: Path = Path("/proc"),
    policy: int | None = None,
    globs: dict[bytes, int] | None = None,
) -> Scope:
    """The scope that `expressions` describe. Raises ScopeError with the reason if one is invalid.

    `now_ns` (CLOCK_BOOTTIME) is the time that `new` compares with. `command` adds the tree of the traced command.
    `policy`: the bit of the policy whose scope it is; `globs`: see comm_term().
    """
    builder = _Builder(proc, now_ns, globs)
    for text in expressions:
        builder.add(text)
    if set(builder.trees) & set(builder.excluded):
        raise ScopeError("scope tree: a tree is both asked for and excluded, nothing can match")
    if command:
        _check_command(builder)
    terms = list(builder.terms)
    if builder.containers and policy is None:
        terms.append("container_in_scope(s->task)")
    if builder.trees or command:
        terms.insert(0, "(s->flags & GROUP_TREE)" if policy is None else f"in_policy_tree({1 << policy:#x}ULL)")
    if builder.excluded:
        terms.insert(0, "!(s->flags & GROUP_NOT_TREE)" if policy is None else f"!in_other_tree({1 << policy:#x}ULL)")
    return Scope(
        condition=" && ".join(terms) or "true",
        container=" && ".join(builder.containers),
        trees=tuple(builder.trees),
        excluded_trees=tuple(builder.excluded),
        pids=tuple(builder.pids),
        follow=builder.flags.get("follow", False),
        texts=tuple(expressions),
    )


def with_policies(span: Scope, policies: Sequence[Sequence[str]], now_ns: int) -> Scope:
    """The scope of a run that is limited to what its policies select. `policies`: expressions, by bit."""
    globs: dict[bytes, int] = {}
    found = tuple(parse(each, now_ns, policy=bit, globs=globs) for bit, each in enumerate(policies))
    return replace(span, policies=found, globs=tuple(globs))


def policy_trees(span: Scope) -> Iterator[tuple[int, int, bool]]:
    """(process, bit of the policy, whether it is excluded) for each process that a policy names the tree of."""
    for bit, policy in enumerate(span.policies):
        yield from ((pid, bit, False) for pid in policy.trees)
        yield from ((pid, bit, True) for pid in policy.excluded_trees)
