"""Every decoder of arguments: cells and blobs as a hostile kernel side could give, in JSON, conditions and signatures.

An input is one record: its event, flags, result, arguments and blobs are the fuzzer's (tests/fuzz/worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from tests.fuzz.mutation import children
from tests.fuzz.samples import seeds as samples
from tests.fuzz.worker import FINAL_NS, WHO, Worker, records

FORM = ""
EACH = 128
TOKENS = (b"/\0", b"..\0", b"@\0", b"\x02\0", b"\x0a\0", b"\x01\0", b"\xff\xff", b"\xe2\x80\xa8", b"\xed\xa0\x80")


def seeds() -> Iterator[bytes]:
    """The samples without what is the same in all of them."""
    return (sample[len(WHO) :] for sample in samples())


@cache
def _worker() -> Worker:
    return Worker(("json",))


def target(data: bytes) -> None:
    worker = _worker()
    worker.begin()
    who = np.broadcast_to(np.frombuffer(WHO, np.uint8), (EACH, len(WHO)))
    for frame in records(np.concatenate([who, children(data, EACH)], axis=1)):
        worker.core.feed(frame)
    batch = worker.turn(FINAL_NS)
    assert (len(batch.rows), batch.rejected) == (EACH, 0), "a sound frame's record is a row"
