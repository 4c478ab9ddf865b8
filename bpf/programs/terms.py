"""The terms of scope expressions that have texts: each becomes a condition in C on a task or a container (scope.py)."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from headrace.bpf.host.mounts import file_device

COMM_BYTES, MAX_GLOBS = 15, 64


class ScopeError(Exception):
    """A scope expression is malformed, contradictory, or can never match."""


def _quote(data: bytes) -> str:
    return '"' + "".join(f'\\x{b:02x}" "' for b in data) + '"'


def comm_term(value: str, globs: dict[bytes, int] | None = None) -> str:
    """C: whether the name of a task is this, or matches this glob. Raises ScopeError. `globs`: the numbers of the globs
    of policies, which are evaluated together.
    """
    data = os.fsencode(value)
    if len(data.replace(b"*", b"")) > COMM_BYTES:
        raise ScopeError(f"scope comm: {value!r} can never match (a task's name has at most {COMM_BYTES} bytes)")
    if b"[" in data:
        raise ScopeError(f"scope comm: {value!r}: a name takes * and ?, and no [...]")
    if b"?" in data or b"*" in data:
        if data.endswith(b"*") and data.count(b"*") == 1 and b"?" not in data:
            return f"task_comm_begins(s->task, {_words_and_masks(data[:-1])})"
        if globs is None:
            return f"({{ struct comm_text t; comm_read(&t, s->task); {comm_glob(data)} != 0; }})"
        number = globs.setdefault(data, len(globs))
        if number < MAX_GLOBS:
            return f"(globs & {1 << number:#x}ULL)"
        raise ScopeError(f"scope comm: {value!r}: policies can have {MAX_GLOBS} different globs of this kind")
    words = data.ljust(16, b"\0")
    first, second = (int.from_bytes(words[i : i + 8], "little") for i in (0, 8))
    return f"task_comm_is(s->task, {first}ULL, {second}ULL)"


def comm_glob(data: bytes) -> str:
    """C: a number that is 0 unless the name `t` matches a glob. The parts between the stars are sought from left to
    right.
    """
    parts = data.split(b"*")
    found = "0x1ULL"
    for number, part in enumerate(parts):
        is_first, is_last = number == 0, number == len(parts) - 1
        if part:
            flags = f"{'false' if is_first else 'true'}, {'true' if is_last else 'false'}, {len(part)}"
            found = f"comm_next(&t, {found}, {flags}, {_words_and_masks(part)})"
    return found


def _words_and_masks(part: bytes) -> str:
    """C: a part of a glob as two words, each with a mask of the bytes that are given. `?` is any byte."""
    found = []
    for i in (0, 8):
        word = part[i : i + 8]
        given = bytes(0 if byte == ord("?") else 255 for byte in word)
        value = bytes(byte & mask for byte, mask in zip(word, given, strict=True))
        found += [f"{int.from_bytes(each, 'little'):#x}ULL" for each in (value, given)]
    return ", ".join(found)


def uts_term(value: str) -> str:
    """C: whether this is the node name of the UTS namespace. Raises ScopeError."""
    data = os.fsencode(value)
    if len(data) > 64:
        raise ScopeError(f"scope uts: {value!r} can never match (a node name has at most 64 bytes)")
    data = (data + b"\0")[:64]
    return f"task_nodename_is(s->task, {_quote(data)}, {len(data)})"


def exe_term(value: str) -> str:
    """C: whether the executable is the file that is at this path now. Raises ScopeError."""
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


def number(key: str, text: str, largest: int) -> int:
    """A number in a scope. ScopeError if it is none, or larger than any that the key can have."""
    if not re.fullmatch("[0-9]{1,20}", text):
        raise ScopeError(f"scope {key}: {text!r} is not a number")
    if int(text) > largest:
        raise ScopeError(f"scope {key}: {text} can never match (the largest is {largest})")
    return int(text)


def cgroup_term(value: str) -> str:
    """C: whether a task is in a cgroup, given by its path or id. Raises ScopeError."""
    if re.fullmatch("[0-9]{1,20}", value):
        return f"bpf_get_current_cgroup_id() == {number('cgroup', value, 2**64 - 1)}ULL"
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


def container_term(value: str) -> str:
    """C: whether a container is new or started, or has an id that begins so. Raises ScopeError."""
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
