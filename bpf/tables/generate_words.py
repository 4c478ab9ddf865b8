"""Generates `words.tsv`, the names of numbers, from the kernel's uapi headers.

    python3 -m headrace.bpf.tables.generate_words [FOLDER]

FOLDER contains an unpacked linux-libc-dev package (`dpkg -x`), so the headers can be newer than those of the host.
Without it, the host's headers are used. `words.txt` lists the requested names, and a C compiler evaluates them.
Requests of ioctl are all constants of all headers that use _IO() or a similar macro, and those in RANGES.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+([A-Za-z_]\w*)[ \t]+(\S.*)$", re.MULTILINE)
ENUM = re.compile(r"\benum\b\s*(\w*)\s*\{(.*?)\}", re.DOTALL)
ENUMERATOR = re.compile(r"(?:^|,)\s*([A-Za-z_]\w*)\s*(?==|,|$)")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
REQUEST = re.compile(r"\w*_IO[CRW]*\s*\(")
SIZED = re.compile(r"^[ \t]*#[ \t]*define[ \t]+([A-Z_]\w*)\(len\)[ \t]+_IOC\(", re.MULTILINE)
RANGES = (
    ("asm-generic/ioctls.h", r"(TC|TIO|FIO|SIO)\w+"),
    ("linux/sockios.h", r"SIOC\w+"),
    ("asm-generic/sockios.h", r"(SIOC|FIO)\w+"),
    ("linux/loop.h", r"LOOP_\w+"),
    ("linux/cdrom.h", r"CDROM\w+|DVD_\w+"),
    ("linux/hdreg.h", r"HDIO_\w+"),
    ("linux/kd.h", r"(KD|GIO|PIO|KDG|KDS)[A-Z0-9]+"),
    ("linux/vt.h", r"VT_[A-Z0-9]+"),
    ("linux/fb.h", r"FBIO\w+"),
    ("linux/lp.h", r"LP[A-Z]+"),
    ("linux/wireless.h", r"SIOC\w+"),
)
"""Headers with requests that are plain numbers."""
FIRST = """asm-generic/ioctls.h linux/sockios.h linux/fs.h linux/if_tun.h linux/loop.h linux/fuse.h linux/kvm.h
    linux/perf_event.h linux/userfaultfd.h linux/nsfs.h linux/seccomp.h linux/vhost.h linux/random.h linux/rtc.h
    linux/watchdog.h linux/input.h linux/uinput.h linux/blkpg.h linux/dm-ioctl.h linux/btrfs.h linux/fscrypt.h
    linux/fsverity.h linux/pidfd.h linux/inotify.h linux/vfio.h linux/iommufd.h linux/usbdevice_fs.h""".split()
"""Headers whose names take precedence if several constants have the same number."""


class Headers:
    """The uapi headers in one folder."""

    def __init__(self, folder: Path) -> None:
        self.roots = [folder / "usr/include", folder / "usr/include/x86_64-linux-gnu"]

    def text(self, name: str) -> str:
        """A header without comments. A header in asm/ includes the text of its asm-generic counterparts."""
        names = [name]
        if name.startswith("asm/"):
            generic = name.replace("asm/", "asm-generic/")
            names += [generic, generic.replace(".h", "-common.h")]
        found = [root / each for each in names for root in self.roots if (root / each).exists()]
        text = "\n".join(path.read_text(errors="replace") for path in found)
        return COMMENT.sub(" ", text).replace("\\\n", " ")

    def all(self) -> list[str]:
        """Kernel headers that can be compiled separately, preferred ones first."""
        found = sorted(
            str(path.relative_to(self.roots[0]))
            for part in ("linux", "asm-generic", "sound", "drm", "misc", "mtd", "rdma", "scsi", "video", "xen")
            for path in (self.roots[0] / part).rglob("*.h")
        )
        return [*FIRST, *(name for name in found if name not in FIRST)]

    def known(self, headers: list[str], names: list[str]) -> dict[str, int]:
        """Values of constants. Names that do not compile are omitted."""
        found = self.values(headers, names)
        if found is not None or len(names) < 2 or self.values(headers, []) is None:
            return found or {}
        half = len(names) // 2
        return self.known(headers, names[:half]) | self.known(headers, names[half:])

    def values(self, headers: Iterable[str], names: Iterable[str]) -> dict[str, int] | None:
        """Values of constants as unsigned 64-bit numbers; None if they do not compile."""
        lines = [f"#include <{each}>" for each in ("linux/types.h", "stddef.h", "linux/ioctl.h", "linux/socket.h")]
        lines += [f"#include <{header}>" for header in headers]
        lines += ["extern int printf(const char *, ...);", "int main(void)", "{"]
        for name in names:
            lines += [f'#define HR_IS(x) printf("{name} %llu\\n", (unsigned long long)(x))', f"HR_IS({name});"]
            lines += ["#undef HR_IS"]
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder, "words.c"), Path(folder, "words")
            source.write_text("\n".join([*lines, "return 0;", "}"]))
            include = [f"-I{root}" for root in self.roots]
            done = subprocess.run(["gcc", "-w", *include, source, "-o", program], capture_output=True, check=False)
            if done.returncode:
                return None
            shown = subprocess.run([program], capture_output=True, text=True, check=True).stdout
        return {name: int(value) for name, value in (line.split() for line in shown.splitlines())}


def constants(text: str) -> dict[str, str]:
    """Every constant that a header defines, with the text of its definition, or `enum X` for an enumerator of X."""
    found: dict[str, str] = {}
    for match in MACRO.finditer(text):
        found[match[1]] = match[2].strip()
    for match in ENUM.finditer(text):
        for name in ENUMERATOR.findall(
            re.sub(
                r"\([^()]*\)",
                "",
                "\n".join(line for line in match[2].splitlines() if not line.lstrip().startswith("#")),
            )
        ):
            found[name] = f"enum {match[1]}"
    return found


def wanted(patterns: list[str], known: dict[str, str]) -> dict[str, int | None]:
    """The names that match the patterns, in order, with their values if the patterns specify them."""
    chosen: dict[str, int | None] = {}
    for pattern in patterns:
        name, _, value = pattern.partition("=")
        if pattern.startswith("!"):
            chosen = {n: v for n, v in chosen.items() if not fnmatch.fnmatchcase(n, pattern[1:])}
        elif value:
            chosen[name] = int(value, 8) if re.fullmatch("0[0-7]+", value) else int(value, 0)
        elif pattern.startswith("enum:"):
            chosen |= {n: None for n, where in known.items() if where == f"enum {pattern[5:]}"}
        else:
            chosen |= {n: None for n in known if fnmatch.fnmatchcase(n, pattern)}
    return chosen


def tables(headers: Headers) -> Iterable[tuple[str, int, str]]:
    """(table, value, name) of all tables of words.txt. Names that the headers lack are printed to stderr."""
    for line in (HERE / "words.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        (table, *files), patterns = line.partition(" : ")[0].split(), line.partition(" : ")[2].split()
        known: dict[str, str] = {}
        for name in files:
            known |= constants(headers.text(name))
        chosen = wanted(patterns, known)
        plain = [name for name, value in chosen.items() if value is None]
        values = headers.known(files, plain)
        missing = [p for p in patterns if not set("*!=:[") & set(p) and p not in chosen] + [
            n for n in plain if n not in values
        ]
        if missing:
            print(f"{table}: not in {' '.join(files)}: {' '.join(missing[:8])}", file=sys.stderr)
        seen = set()
        for name, value in chosen.items():
            number = values.get(name) if value is None else value
            if number is not None and number not in seen:
                seen.add(number)
                yield table, number, name


def requests(headers: Headers) -> Iterable[tuple[str, int, str]]:
    """The requests of ioctl of every header that can be compiled."""
    plain = {name: re.compile(pattern) for name, pattern in RANGES}
    found: dict[int, str] = {}
    for name in headers.all():
        known = constants(headers.text(name))
        numbers = plain.get(name)
        names = [
            each
            for each, text in known.items()
            if REQUEST.search(text) or (numbers and numbers.fullmatch(each) and re.match(r"\(?(0x|SIO)", text))
        ]
        if not names:
            continue
        for each, number in headers.known([name], names).items():
            # smaller plain numbers are arguments of requests
            if number >> 32 == 0 and (number > 0xFF or REQUEST.search(known[each])):
                found.setdefault(number, each)
    for number, each in sorted(found.items()):
        yield "ioctl", number, each


def sized_requests(headers: Headers) -> Iterable[tuple[str, int, str]]:
    """The requests of ioctl that encode the size of the caller's buffer, with size 0."""
    found: dict[int, str] = {}
    for name in headers.all():
        names = SIZED.findall(headers.text(name))
        for each, number in headers.known([name], [f"{n}(0)" for n in names]).items() if names else ():
            found.setdefault(number, each.removesuffix("(0)"))
    for number, each in sorted(found.items()):
        yield "ioctl_sized", number, each


def main() -> None:
    """Writes the table."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/")
    headers = Headers(folder)
    version = headers.known(["linux/version.h"], ["LINUX_VERSION_CODE"])["LINUX_VERSION_CODE"]
    shown = f"{version >> 16}.{version >> 8 & 255}.{version & 255}"
    lines = [f"# generated by bpf/tables/generate_words.py from the uapi headers of Linux {shown}; do not edit"]
    found = [*tables(headers), *requests(headers), *sized_requests(headers)]
    lines += [f"{table}\t{number:#x}\t{name}" for table, number, name in found]
    (HERE / "words.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
