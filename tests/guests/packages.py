"""Debian's packages, fetched with a configuration of apt's of our own and unpacked into a folder."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("qemu-system-x86", "mmdebstrap", "cpio")
USERLAND = """ca-certificates python3 python3-venv python3-bpfcc gcc gcc-multilib libc6-dev make git procps iproute2
    kmod mount busybox-static libseccomp2""".split()
UNSTABLE = frozenset({"sid", "forky", "experimental"})
PARTS = ("image", "binary", "modules", "base")
"""Since 7.2 a kernel's image and its modules are packages of their own."""


class GuestError(Exception):
    """What is missing to make or boot a guest."""


class StalledError(Exception):
    """A guest was booted, and its job did not come to its end."""


@dataclass(frozen=True)
class Kernel:
    """One of Debian's kernels. `pattern`: a regular expression of apt's for the package, behind `linux-image-`."""

    name: str
    suite: str
    pattern: str
    append: str = ""
    """For its command line."""


def run(command: Sequence[str], **options: object) -> str:
    """What a command prints; GuestError with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    except OSError as error:
        raise GuestError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        raise GuestError(f"{' '.join(map(str, command[:3]))}: {done.stderr.strip()[-400:]}")
    return str(done.stdout)


@dataclass(frozen=True)
class Apt:
    """apt with sources and a state of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What makes apt use it."""
        return os.environ | {"APT_CONFIG": str(self.folder / "apt.conf")}

    @property
    def sources(self) -> Path:
        """The list of its mirrors."""
        return self.folder / "sources.list"

    @classmethod
    def of(cls, folder: Path, suites: Iterable[str]) -> Apt:
        """With these suites, of the mirrors that this machine uses."""
        for part in ("state/lists/partial", "cache/archives/partial", "preferences.d"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        found = cls(folder)
        mirror, security = _mirrors()
        lines = (f"deb [trusted=yes] {security if s.endswith('-security') else mirror} {s} main" for s in suites)
        found.sources.write_text("".join(f"{line}\n" for line in lines))
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state"; Dir::State::status "{folder}/status"; Dir::Cache "{folder}/cache";\n'
            f'Dir::Etc::sourcelist "{found.sources}"; Dir::Etc::sourceparts "-";\n'
            f'Dir::Etc::preferencesparts "{folder}/preferences.d";\n'
            'APT::Architecture "amd64"; APT::Sandbox::User "root";\n'
        )
        run(["apt-get", "update", "-qq"], env=found.environment)
        return found

    def fetch(self, package: str, to: Path) -> None:
        """Download and unpack it; nothing if there is none."""
        with contextlib.suppress(GuestError):
            run(["apt-get", "-qq", "download", package], cwd=to, env=self.environment)
        for file in to.glob("*.deb"):
            run(["dpkg", "-x", str(file), str(to)])
            file.unlink()


def _mirrors() -> tuple[str, str]:
    text = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    found = text.split()
    mirror = next((url for url in found if url.endswith("/debian/")), "http://deb.debian.org/debian/")
    security = next((url for url in found if url.endswith("security/")), "http://deb.debian.org/debian-security/")
    return mirror, security


def fetch_tools(folder: Path) -> Path:
    """qemu and what makes a userland, below `folder`."""
    made = folder / "host"
    if not (made / "usr/bin/qemu-system-x86_64").exists():
        debs = folder / "debs"
        (debs / "partial").mkdir(parents=True, exist_ok=True)
        made.mkdir(exist_ok=True)
        options = ["-o", f"Dir::Cache::archives={debs}", "-y", "--no-install-recommends", "--download-only"]
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "-qq", *options, "install", *TOOLS])
        for file in debs.glob("*.deb"):
            run(["dpkg", "-x", str(file), str(made)])
    return made


def _apt(folder: Path, kernel: Kernel) -> Apt:
    suites = [kernel.suite]
    if kernel.suite not in UNSTABLE and not kernel.suite.endswith("-backports"):
        suites.append(f"{kernel.suite}-security")
    return Apt.of(folder / "apt" / kernel.suite, suites)


def fetch_kernel(folder: Path, kernel: Kernel) -> Path:
    """A kernel with its modules: `folder`/kernels/NAME; and what builds modules for it, in `headers` there."""
    made = folder / "kernels" / kernel.name
    headers, there = made / "headers", bool(list(made.rglob("vmlinuz*")))
    if there and headers.is_dir():
        return made
    apt = _apt(folder, kernel)
    if not there:
        made.mkdir(parents=True, exist_ok=True)
        lines = run(["apt-cache", "search", "-n", f"^linux-image-{kernel.pattern}$"], env=apt.environment)
        names = [line.split()[0] for line in lines.splitlines()]
        if not names:
            raise GuestError(f"{kernel.suite} has no package linux-image-{kernel.pattern}")
        newest = run(["sort", "-V"], input="\n".join(names)).split()[-1]
        for part in PARTS:
            apt.fetch(newest.replace("image", part, 1), made)
        if (made / "usr/lib/modules").is_dir():
            (made / "lib").mkdir(exist_ok=True)
            (made / "usr/lib/modules").rename(made / "lib/modules")
    if not headers.is_dir():
        headers.mkdir()
        package = f"linux-headers-{next((made / 'lib/modules').iterdir()).name}"
        needed = re.findall(r"Depends: (linux-(?:headers|kbuild)\S+)", _depends(apt, package))
        for name in (package, *needed):
            apt.fetch(name, headers)
    return made


def _depends(apt: Apt, package: str) -> str:
    """Nothing if a mirror no longer has it."""
    with contextlib.suppress(GuestError):
        return run(["apt-cache", "depends", package], env=apt.environment)
    return ""
