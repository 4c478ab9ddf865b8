"""Held against strace: both watch the same processes, and every argument of every call is compared.

    headrace run -e syscalls -s comm!=strace -- strace -f -v -o FILE -- COMMAND
      events of a thread, in order   <->   lines of the thread, in order

strace's binary is an observer here, and nothing more. An argument is

    same        the same number or words; or both have looked behind the pointer: what is there is not compared
    undecoded   strace has words or a structure where headrace has a number or an address
    words       both have words, and they differ (docs/explanation/strace.md says which, and why)
    wrong       both have a number, and they differ

    python -m bench.strace [--show 20] [--result FILE] COMMAND...       a command, or each line of standard input
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.rig import harness
from headrace.bpf.tables.reads import BUFFERS

HEADRACE = str(Path(sys.executable).with_name("headrace"))
DEADLINE_S = 300
PERF_PAGES = 4096
"""16 MiB a CPU: what both do to the processes is slow, and nothing shall be lost of it."""
LINE = re.compile(
    r"(?P<tid>\d+) +(?P<name>\w+)\((?P<args>.*)\) += (?P<result>\S+)(?: (?P<error>E[A-Z0-9_]+))?.*", re.DOTALL
)
UNFINISHED = re.compile(r"(?P<tid>\d+) +(?P<name>\w+)\((?P<args>.*?),?\s*<unfinished \.\.\.>", re.DOTALL)
RESUMED = re.compile(r"(?P<tid>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)", re.DOTALL)
NUMBER = re.compile(r"-?(0x[0-9a-f]{1,16}|0[0-7]{0,21}|[1-9][0-9]{0,19})")
COMMENT = re.compile(r" ?/\*.*?\*/")
ONE_NUMBER = re.compile(r"\[(?:\w+ => )?(-?\w+)\]")
NAMED = {
    "child_stack": "stack",
    "flags": "flags",
    "parent_tidptr": "parent_tid",
    "child_tidptr": "child_tid",
    "tls": "tls",
}
"""Arguments of clone, which strace shows by names of its own and in the order of the manual page."""
IDS = ("uid_t", "gid_t")
"""Of these -1 is 4294967295 to headrace: they are unsigned."""
SHORTER = {"recv": "recvfrom", "send": "sendto"}
"""Calls of socketcall that are others with fewer arguments."""
NEAR = 4
"""So many events are looked through for that of a line."""


@dataclass
class Compared:
    """What came of it: counts by class, and by (call, argument) of what is not the same; `calls` of both."""

    classes: Counter[str] = field(default_factory=Counter)
    unlike: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    calls: int = 0
    unmatched: int = 0
    results: int = 0
    """Results that differ."""
    lost: int = 0
    """Events that headrace's ledger has as lost: lines have none then."""

    def add(self, kind: str, call: str, argument: str, strace: str, own: object) -> None:
        """One argument."""
        self.classes[kind] += 1
        if kind != "same":
            key = kind, call, argument
            self.unlike[key] += 1
            self.examples.setdefault(key, (strace[:120], str(own)[:120]))


def split(text: str) -> list[str]:
    """Arguments as strace separates them: at commas outside of brackets and quotes."""
    found, depth, begin, quoted, i = [], 0, 0, False, 0
    while i < len(text):
        c = text[i]
        if quoted:
            if c == "\\":
                i += 1
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and not depth:
            found.append(text[begin:i].strip())
            begin = i + 1
        i += 1
    last = text[begin:].strip()
    return [*found, last] if last or found else []


def lines_of(text: str) -> Iterator[tuple[int, str, list[str], str, str | None]]:
    """(thread, call, arguments, result, error) of every whole line of strace's output."""
    begun: dict[int, tuple[str, str]] = {}
    for line in text.splitlines():
        if match := UNFINISHED.fullmatch(line):
            begun[int(match["tid"])] = match["name"], match["args"]
            continue
        if match := RESUMED.fullmatch(line):
            name, args = begun.pop(int(match["tid"]), ("", ""))
            rest = match["rest"]
            joint = ", " if args and rest[:1] not in (")", "") and not rest.startswith(",") else ""
            line = f"{match['tid']} {name}({args}{joint}{rest.lstrip(', ')}"
        if match := LINE.fullmatch(line):
            yield int(match["tid"]), match["name"], split(match["args"]), match["result"], match["error"]


def _words(text: str) -> set[str]:
    return set(text.replace(" ", "").split("|"))


def _number(text: str) -> int | None:
    plain = COMMENT.sub("", text).strip()
    if match := ONE_NUMBER.fullmatch(plain):
        plain = match[1]
    if not NUMBER.fullmatch(plain):
        return 0 if plain == "NULL" else None
    return int(plain, 0) if not re.fullmatch("0[0-7]+", plain) else int(plain, 8)


def _agree(own: int, strace: int, kind: str) -> bool:
    """Ids are unsigned to headrace, and a negative int without a word is 0xffffffff to strace."""
    is_int = -(1 << 31) <= own < 0 <= strace < 1 << 32
    return (own - strace) % (1 << (32 if kind in IDS or is_int else 64)) == 0


def class_of(strace: str, own: dict[str, Any]) -> str:
    """How one argument compares."""
    value, raw = own["value"], own.get("raw")
    strace = strace.partition("=")[2] if re.match(r"\w+=[^=]", strace) else strace
    number = _number(strace)
    if number is not None and ("reason" in own or (isinstance(value, str) and f"/* {value} */" in strace)):
        return "same"  # an address to strace, which could not be read either; or a word that strace adds to the number
    if number is not None:
        numbers = [n for n in (raw, value) if isinstance(n, int) and not isinstance(n, bool)]
        shown = _number(value) if isinstance(value, str) else None
        numbers += [] if shown is None else [shown]
        if not numbers or any(_agree(n, number, own["type"]) for n in numbers):
            return "same"
        # an address to strace, and what stands behind it to headrace
        return "same" if re.match("0x[0-9a-f]{6}", strace) and raw is None else "wrong"
    plain = isinstance(value, int) or (isinstance(value, str) and bool(re.fullmatch("0x[0-9a-f]+|-?[0-9]+", value)))
    if plain and "reason" not in own:
        return "undecoded"
    if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_x|]*", strace):
        return "same" if _words(strace) == _words(value) else "words"
    return "same"


def _pairs(name: str, given: list[str], own: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    if name != "clone":
        yield from zip(given, own, strict=False)
        return
    by_name = {argument["name"]: argument for argument in own}
    for said in given:
        key, _, value = said.partition("=")
        if NAMED.get(key) in by_name:
            yield value, by_name[NAMED[key]]


def compare(text: str, events: Sequence[dict[str, Any]], into: Compared) -> None:
    """strace's output and headrace's events of the same processes."""
    by_thread: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_thread[event["hostThreadId"]].append(event)
    for tid, name, given, result, error in lines_of(text):
        own = by_thread[tid]
        # a child's first end of call is that of the clone that made it; some calls stand for others
        name = SHORTER.get(name, name)
        near = [event["eventName"] for event in own[:NEAR]]
        del own[: near.index(name) if name in near else 0]
        if name not in near:
            into.unmatched += 1
            into.unlike["unmatched", name, ""] += 1
            into.examples["unmatched", name, ""] = name, own[0]["eventName"] if own else ""
            continue
        event = own.pop(0)
        into.calls += 1
        wanted = _number(result)
        if event["returnValue"] is not None:  # else it was taken where it began
            same_number = wanted is None or (event["returnValue"] - wanted) % (1 << 64) == 0
            if not (event.get("error") == error if error else same_number):
                into.results += 1
                into.unlike["result", name, ""] += 1
                into.examples["result", name, ""] = error or result, str(event.get("error") or event["returnValue"])
        on_request = BUFFERS[name][0] if name in BUFFERS else None
        for said, argument in _pairs(name, given, event["args"]):
            is_buffer = on_request is not None and argument is event["args"][on_request]
            kind = "same" if is_buffer else class_of(said, argument)
            into.add(kind, name, argument["name"], said, argument["value"])


def watch(command: Sequence[str], into: Compared, folder: Path) -> None:
    """Run a command below both."""
    events, lines, ledger = folder / "events", folder / "strace", folder / "ledger"
    strace = ["strace", "-f", "-v", "-qq", "-s", "4096", "-o", str(lines), "--", *command]
    run = [HEADRACE, "run", "-e", "syscalls", "-o", f"json:{events},truncate=yes", "--ledger", str(ledger)]
    run += ["--perf-pages", str(PERF_PAGES), "--scope", "comm!=strace", "--", *strace]
    subprocess.run(run, capture_output=True, timeout=DEADLINE_S, check=False, stdin=subprocess.DEVNULL)
    found = [json.loads(line) for line in events.read_text().splitlines()]
    into.lost += json.loads(ledger.read_text())["lost"]
    compare(lines.read_text(errors="replace"), found, into)


def main() -> None:
    """Compare commands, and print what differs."""
    parser = argparse.ArgumentParser(description="headrace and strace, argument by argument")
    parser.add_argument("--show", type=int, default=20, help="so many of what differs most")
    parser.add_argument("--result", type=Path, help="file for the counts")
    parser.add_argument("command", nargs="*")
    options = parser.parse_args()
    commands = [options.command] if options.command else [shlex.split(line) for line in sys.stdin if line.strip()]
    found = Compared()
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            watch(command, found, Path(folder))
    if options.result:
        counts = {"calls": found.calls, "unmatched": found.unmatched, "results_that_differ": found.results}
        counts["lost"] = found.lost
        unlike = {" ".join(key): count for key, count in found.unlike.most_common()}
        shown = {"environment": harness.environment(), **counts, "arguments": dict(found.classes), "unlike": unlike}
        options.result.write_text(json.dumps(shown, indent=2) + "\n")
    print(
        f"calls {found.calls}  unmatched {found.unmatched}  lost {found.lost}  results that differ {found.results}  "
        f"{dict(found.classes)}"
    )
    for key, count in found.unlike.most_common(options.show):
        print(f"{count:>6}  {' '.join(key)}: {found.examples[key][0]}  |  {found.examples[key][1]}")


if __name__ == "__main__":
    main()
