"""Generates the tables of system calls from the kernel's own definitions.

    sudo python3 -m headrace.bpf.tables.generate_calls

Names and types of arguments come from tracefs (`events/syscalls/sys_enter_*/format`, the kernel's SYSCALL_DEFINE
metadata). Numbers come from the uapi headers `asm/unistd_64.h` and `asm/unistd_32.h` (Debian: linux-libc-dev).
`overlay.txt` adds what both lack. The results `syscalls_x86_64.tsv` and `syscalls_i386.tsv` are checked in, with one
line per call:

    number  name  type argument, ...  width of each argument  registers (if a 32-bit call has its own)

A width is that of the kernel's prototype, even if the manual page differs: s32, u32, s64, u64, u16 (a umode_t), or
id16 for 16-bit ids of 32-bit calls. For a call that the running kernel lacks, the type in the overlay determines the
width.
"""

from __future__ import annotations

import re
from pathlib import Path

from headrace.bpf.tables.widths import width_of

HERE = Path(__file__).parent
FORMATS = Path("/sys/kernel/tracing/events/syscalls")
HEADERS = Path("/usr/include/x86_64-linux-gnu/asm")

FIELD = re.compile(r"field:(.+?)\s*(\w+);\s*offset:\d+")
NUMBER = re.compile(r"#define __NR_(\w+) (\d+)")
KERNEL_NAMES = {
    "newstat": "stat",
    "newfstat": "fstat",
    "newlstat": "lstat",
    "newuname": "uname",
    "sendfile64": "sendfile",
    "umount": "umount2",
}
"""SYSCALL_DEFINE names that differ from the name of the call."""
OLD_CALLS = {"mmap": "old_mmap", "select": "old_select"}
"""Calls of the 32-bit table that take their arguments in a struct."""
ARGUMENT_NAMES = {
    "dfd": "dirfd",
    "filename": "pathname",
    "flag": "flags",
    "fildes": "fd",
    "olddfd": "olddirfd",
    "newdfd": "newdirfd",
    "oldname": "oldpath",
    "newname": "newpath",
    "usize": "size",
}
"""Argument names of the kernel, and the names that manual pages use."""
TYPE_NAMES = {
    "umode_t": "mode_t",
    "unsigned": "unsigned int",
    "struct __kernel_timespec*": "struct timespec*",
    "const struct __kernel_timespec*": "const struct timespec*",
    "struct __kernel_itimerspec*": "struct itimerspec*",
    "const struct __kernel_itimerspec*": "const struct itimerspec*",
    "__s32": "int",
    "__u32": "u32",
    "__u64": "u64",
    "struct user_msghdr*": "struct msghdr*",
}

Arguments = list[tuple[str, str]]
Widths = list[str]
USED = {("ptrace", "pid"): "s32"}
"""Arguments of which the kernel uses fewer bits than its prototype has."""
FD = re.compile(r"\w*fd")
IDS_16 = """chown fchown lchown setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid""".split()
"""32-bit calls with 16-bit uid_t and gid_t (arch/x86/entry/syscalls/syscall_32.tbl: those named `..16`)."""


def clean_type(text: str) -> str:
    """A type as the tables spell it: `const char *const *` becomes `const char*const*`."""
    text = re.sub(r"\s*\*\s*", "*", text.strip())
    text = re.sub(r"^const (clockid_t|int|size_t|__u32|enum)", r"\1", text)
    return TYPE_NAMES.get(text, text)


def from_tracefs() -> dict[str, Arguments]:
    """All calls of the running kernel, with their arguments."""
    calls: dict[str, Arguments] = {}
    for folder in sorted(FORMATS.glob("sys_enter_*")):
        name = folder.name.removeprefix("sys_enter_")
        fields = FIELD.findall((folder / "format").read_text())
        arguments = [
            (clean_type(kind), ARGUMENT_NAMES.get(arg.lstrip("_"), arg.lstrip("_")))
            for kind, arg in fields
            if not arg.startswith(("common_", "__syscall_nr"))
        ]
        calls[KERNEL_NAMES.get(name, name)] = arguments
    return calls


def split_argument(text: str) -> tuple[str, str]:
    """Splits `const char* pathname` into (type, name)."""
    kind, _, name = text.strip().rpartition(" ")
    return kind.strip(), name


def from_overlay(calls: dict[str, Arguments], widths: dict[str, Widths]) -> tuple[dict[str, int], dict[str, str]]:
    """Applies overlay.txt to `calls` and `widths`. Returns the numbers and registers in it. SystemExit if it is
    invalid.
    """
    numbers: dict[str, int] = {}
    registers: dict[str, str] = {}
    for line in (HERE / "overlay.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"(\d+) (\w+)", line):
            numbers[match[2]] = int(match[1])
        elif match := re.fullmatch(r"(\w+) = (\w+)", line):
            calls[match[1]], widths[match[1]] = calls[match[2]], widths[match[2]]
        elif match := re.fullmatch(r"(\w+) @ ([0-9+ ]+)", line):
            registers[match[1]] = match[2]
        elif match := re.fullmatch(r"(\w+)\((.*)\)", line):
            name, arguments = match[1], [split_argument(part) for part in match[2].split(",") if part.strip()]
            calls[name] = arguments
            if name not in widths or len(widths[name]) != len(arguments):
                widths[name] = [width_of(kind) for kind, _ in arguments]
        else:
            raise SystemExit(f"overlay.txt: cannot read {line!r}")
    return numbers, registers


def used(call: str, kind: str, argument: str) -> str:
    """Width of an argument of the kernel's prototype. fget() uses 32 bits of every descriptor."""
    width = USED.get((call, argument)) or width_of(kind)
    return "u32" if FD.fullmatch(argument) and width.endswith("64") else width


def narrowed(name: str, arguments: Arguments, widths: Widths) -> Widths:
    """Widths of a 32-bit call, with 16-bit ids if it has them."""
    ids = ("uid_t", "gid_t") if name in IDS_16 else ()
    return ["id16" if kind in ids else width for (kind, _), width in zip(arguments, widths, strict=True)]


def write(
    path: Path,
    source: str,
    numbers: dict[str, int],
    calls: dict[str, Arguments],
    widths: dict[str, Widths],
    registers: dict[str, str],
) -> None:
    """Writes one table. Raises KeyError for a call with unknown arguments."""
    lines = [f"# generated by bpf/tables/generate_calls.py from {source}; do not edit"]
    for name, number in sorted(numbers.items(), key=lambda item: item[1]):
        arguments = ", ".join(f"{kind} {arg}" for kind, arg in calls[name])
        lines.append(
            "\t".join([str(number), name, arguments, " ".join(widths[name]), registers.get(name, "")]).rstrip()
        )
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Writes both tables."""
    calls = from_tracefs()
    widths = {name: [used(name, *argument) for argument in arguments] for name, arguments in calls.items()}
    newer, registers = from_overlay(calls, widths)
    for table, header in (("x86_64", "unistd_64.h"), ("i386", "unistd_32.h")):
        numbers = {name: int(n) for name, n in NUMBER.findall((HEADERS / header).read_text())}
        if table == "i386":
            numbers = {OLD_CALLS.get(name, name): number for name, number in numbers.items()}
        common = {name: n for name, n in newer.items() if table == "x86_64" or n > max(numbers.values())}
        known, own = widths, {}
        if table == "i386":
            known = {name: narrowed(name, calls[name], each) for name, each in widths.items()}
            own = registers
        write(HERE / f"syscalls_{table}.tsv", f"tracefs and asm/{header}", numbers | common, calls, known, own)


if __name__ == "__main__":
    main()
