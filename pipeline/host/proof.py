"""`headrace check --live`: causes every event that this host claims to support, and checks that it is reported."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace.bpf import layout
from headrace.bpf.host import cgroups
from headrace.bpf.tables.catalogue import LOSS, Event, catalogue
from headrace.pipeline.host.causes import COMPAT_CALLS, CONTAINER, GROUP
from headrace.pipeline.host.features import Finding, event_lack, event_state

NAME = "live"
EXISTING = "existing_container"
"""This event belongs to no process. A run whose scope is a process tree does not report it."""
DEADLINE_S = 1200
BOOKS = ("produced", "delivered", "lost", "lost_by_reason", "missed_runs", "missed_by_program", "balanced")
UNKNOWN_NUMBER = 9999
"""A system call number that no kernel uses."""
ROOTKITS = "hooked_syscall hooked_syscalls hooked_seq_ops hooked_proc_fops hidden_kernel_module ftrace_hook"
MODULES = "module_load module_free do_init_module proc_create debugfs_create_file debugfs_create_dir register_chrdev"
NOT_CAUSED = {
    LOSS: "comes when events are lost",
    **dict.fromkeys(MODULES.split(), "would take a module to be loaded into this kernel"),
    **dict.fromkeys(ROOTKITS.split(), "would take the kernel's own tables to be changed"),
    **dict.fromkeys(("zeroed_inodes", "hidden_inodes"), "would take a file system with entries that have no inode"),
    "__kernel_write": "comes when the kernel itself writes a file, as with accounting",
}


class _Seen(msgspec.Struct, rename={"name": "eventName"}):
    name: str


class Proof(msgspec.Struct, frozen=True):
    """Result of the check.

    `arrived`: number of events by name. `missing`: events that were caused and not reported. `not_caused`: events that
    were not caused, with the reason. `ledger`: from the first run. `error`: why the check failed.
    """

    arrived: dict[str, int] = {}
    missing: tuple[str, ...] = ()
    not_caused: dict[str, str] = {}
    ledger: dict[str, Any] = {}
    error: str = ""

    def findings(self) -> list[Finding]:
        """Findings for display: a summary, and the events that are missing or were not caused."""
        if self.error:
            return [Finding(NAME, False, self.error)]
        books = "the ledger balances" if self.ledger["balanced"] else "THE LEDGER DOES NOT BALANCE"
        lost = self.ledger["lost"]
        detail = f"{len(self.arrived)} events were caused and came, {len(self.missing)} did not; {books}, {lost} lost"
        found = [Finding(NAME, bool(self.ledger["balanced"]), detail)]
        found += [Finding(f"event {name}", False, "caused, and did not come") for name in self.missing]
        found += [
            Finding(f"event {n}", False, f"not caused: {why}", optional=True) for n, why in self.not_caused.items()
        ]
        return found


def claimed(refused: frozenset[str]) -> list[Event]:
    """The events that this host supports, except those whose programs the kernel has refused."""
    known = (event for event in catalogue().by_id.values() if event.hook is not None and not event_lack(event))
    return [event for event in known if event.name not in refused and event_state(event)[0]]


def prove(refused: frozenset[str]) -> Proof:
    """Cause all supported events in a traced command, and compare them with the events that headrace reports."""
    events = claimed(refused)
    with tempfile.TemporaryDirectory(prefix="headrace-check-") as name, _group() as group:
        folder = Path(name)
        (folder / "plan").write_text(json.dumps(_plan({event.name for event in events})))
        names = ",".join(event.name for event in events)
        causes = ("-P", "-m", "headrace.pipeline.host.causes", str(folder), str(group or "-"))
        said = ""
        try:
            done = _run(
                folder / "events", "-e", names, "--ledger", str(folder / "ledger"), "--", sys.executable, *causes
            )
            said = done.stderr.strip().rpartition("\n")[2]
            failed = json.loads(done.stdout)
            if group is None:
                failed[EXISTING] = failed["container_create"]
            else:
                _run(folder / "existing", "-e", EXISTING, "-s", f"container={CONTAINER}", "--", "/bin/true")
            return _proof(events, folder, failed)
        except subprocess.TimeoutExpired:
            return Proof(error=f"a run did not end in {DEADLINE_S} s")
        except (OSError, ValueError, KeyError) as error:
            return Proof(error=f"the run failed: {said or error}")


def _run(events: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "headrace", "run", "--log-level", "error", "-o", f"json:{events}", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
    )


def _plan(names: set[str]) -> list[tuple[int, bool]]:
    """(number, whether it uses the 32-bit entry) of every system call among these events."""
    calls = catalogue().calls
    native = {call.event.name for call in calls if not call.compat}
    return [
        (UNKNOWN_NUMBER if call.number == layout.UNKNOWN_CALL else call.number, call.compat)
        for call in calls
        if call.event.name in names and (not call.compat or call.event.name not in native)
    ]


def _proof(events: list[Event], folder: Path, failed: dict[str, str]) -> Proof:
    if failed.get(""):
        return Proof(error=failed[""])
    decoder, arrived = msgspec.json.Decoder(_Seen), Counter[str]()
    for path in (folder / "events", folder / "existing"):
        if path.exists():
            arrived.update(decoder.decode(line).name for line in path.read_bytes().splitlines())
    books = json.loads((folder / "ledger").read_text())
    compat = {call.event.name for call in catalogue().calls if call.compat}
    native = {call.event.name for call in catalogue().calls if not call.compat}
    missing, not_caused = [], {}
    for event in events:
        if arrived[event.name]:
            continue
        why = NOT_CAUSED.get(event.name) or failed.get(event.name, "")
        if not why and event.name in compat - native:
            why = failed.get(COMPAT_CALLS, "")
        if why:
            not_caused[event.name] = why
        else:
            missing.append(event.name)
    ledger = {name: books[name] for name in BOOKS}
    return Proof(dict(sorted(arrived.items())), tuple(missing), not_caused, ledger)


@contextlib.contextmanager
def _group() -> Iterator[Path | None]:
    """A new control group that contains one named like a container's; None if it cannot be created."""
    found = cgroups.hierarchy()
    if found is None:
        yield None
        return
    own = cgroups.own(found) / f"headrace-check-{os.getpid()}"
    try:
        own.mkdir()
    except OSError:
        yield None
        return
    try:
        (own / GROUP).mkdir()
        yield own
    finally:
        for path in (own / GROUP, own):
            with contextlib.suppress(OSError):
                path.rmdir()
