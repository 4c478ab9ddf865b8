"""One target under libFuzzer (atheris), or under the plain mutator, until so many inputs or seconds.

A process of its own, started by `python -m tests.fuzz`. It ends by libFuzzer's hand, or dies of what it found; what it
has done stands in a file that both map:

    executions u64 | nanoseconds u64, from the first execution on

A defect that raises is kept as a file and the campaign goes on: each place once. One that kills or hangs the process is
kept by libFuzzer, and the campaign is started again.
"""

from __future__ import annotations

import hashlib
import mmap
import random
import struct
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from tests.fuzz import Target, load, trees
from tests.fuzz.mutation import mutated

ROOT = Path(__file__).parents[2]
PROGRESS = struct.Struct("<QQ")
PACKAGES = tuple(f"headrace.{room}" for room in ("bpf", "config", "pipeline", "workers"))
LONGEST_TRACE = 30
TIMEOUT_S, MEMORY_MB = 60, 4096
"""An input that takes longer, or with which the process takes more, is a defect."""


def place(error: BaseException) -> str:
    """What a defect is known by: where it was raised, in our own code if it went through that, and its kind."""
    frames = traceback.extract_tb(error.__traceback__)
    last = ([frame for frame in frames if frame.filename.startswith(str(ROOT / "headrace"))] or frames)[-1]
    why = str(error) if isinstance(error, AssertionError) else ""
    return " ".join(f"{type(error).__name__} {last.filename}:{last.lineno} {why}".split())


class Defects:
    """What was found: an input for each place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()

    def keep(self, data: bytes, error: BaseException) -> None:
        """A file with the input, and one that says what came of it."""
        where = place(error)
        if where in self._seen:
            return
        self._seen.add(where)
        name = f"defect-{hashlib.sha256(where.encode()).hexdigest()[:16]}"
        self._folder.mkdir(parents=True, exist_ok=True)
        Path(self._folder, name).write_bytes(data)
        trace = "".join(traceback.format_exception(error, limit=-LONGEST_TRACE))
        Path(self._folder, f"{name}.txt").write_text(f"{where}\n\n{trace}", errors="backslashreplace")
        print(f"defect: {where}\n  {Path(self._folder, name)}", file=sys.stderr, flush=True)


def counted(target: Target, folder: Path, progress: mmap.mmap) -> Callable[[bytes], None]:
    """The target as libFuzzer calls it."""
    executions, spent_ns = PROGRESS.unpack_from(progress)
    defects, begin_ns = Defects(folder), 0

    def one(data: bytes) -> None:
        nonlocal executions, begin_ns
        executions += 1
        begin_ns = begin_ns or time.monotonic_ns() - spent_ns
        PROGRESS.pack_into(progress, 0, executions, time.monotonic_ns() - begin_ns)
        try:
            with redirect_stdout(StringIO()):
                target.target(data)
        except Exception as error:
            defects.keep(data, error)

    return one


def plainly(target: Target, one: Callable[[bytes], None], executions: int, seconds: float, seed: int) -> None:
    """Seeds, up to half of it, and what comes of them: no feedback, the same inputs for the same seed."""
    seeds = list(target.seeds())
    chance, end = random.Random(seed), time.monotonic() + seconds
    first = seeds[:: max(1, 2 * len(seeds) // max(executions, 1))][:executions]
    for data in first:
        one(data)
    for _ in range(executions - len(first)):
        if time.monotonic() > end:
            return
        one(_next(target, chance.choice(seeds), chance, lambda data: mutated(data, chance, seeds, target.TOKENS)))


def _next(target: Target, data: bytes, chance: random.Random, bytewise: Callable[[bytes], bytes]) -> bytes:
    """Another input: of a text, half of the time one that says something else."""
    found = trees.mutated(target.FORM, data, chance, target.TOKENS) if target.FORM and chance.random() < 0.5 else None
    return bytewise(data) if found is None else found


def words(target: Target, path: Path) -> None:
    """The tokens as libFuzzer reads them."""
    escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in target.TOKENS)
    path.write_text("".join(f'"{token}"\n' for token in escaped if len(token) <= 4 * 64))


def guided(name: str, cache: Path, progress: mmap.mmap, executions: int, seconds: float, seed: int) -> None:
    """Does not return."""
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES)):
        target = load(name)
        seeds = list(target.seeds())
    one = counted(target, cache / "crashes", progress)
    for folder in ("corpus", "seeds", "crashes"):
        Path(cache, folder).mkdir(parents=True, exist_ok=True)
    for data in seeds:
        Path(cache, "seeds", hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    words(target, cache / "words")
    longest = max(4096, 2 * max(map(len, seeds)))
    options: dict[str, object] = {
        "runs": executions,
        "max_total_time": max(1, round(seconds)),
        "seed": seed,
        "max_len": longest,
        "len_control": 20,
        "timeout": TIMEOUT_S,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{cache}/crashes/",
        "report_slow_units": TIMEOUT_S,
        "print_final_stats": 1,
        "reload": 0,
    }
    if target.TOKENS:
        options["dict"] = cache / "words"
    given = [f"-{key}={value}" for key, value in options.items()]

    def custom(data: bytes, most: int, seed: int) -> bytes:
        return _next(target, data, random.Random(seed), lambda given: bytes(atheris.Mutate(given, most)))[:most]

    more = {"custom_mutator": custom} if target.FORM else {}
    atheris.Setup([name, *given, str(cache / "corpus"), str(cache / "seeds")], one, internal_libfuzzer=True, **more)
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """NAME MODE CACHE PROGRESS EXECUTIONS SECONDS SEED"""
    name, mode, cache, shared, *numbers = arguments
    executions, seconds, seed = int(numbers[0]), float(numbers[1]), int(numbers[2])
    with open(shared, "r+b") as file:
        progress = mmap.mmap(file.fileno(), PROGRESS.size)
    if mode == "guided":
        guided(name, Path(cache), progress, executions, seconds, seed)
    target = load(name)
    plainly(target, counted(target, Path(cache, "crashes"), progress), executions, seconds, seed)


if __name__ == "__main__":
    main(sys.argv[1:])
