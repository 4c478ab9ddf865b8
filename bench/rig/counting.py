"""The counting subscriber of the benchmarks: a process of its own that checks every row.

    python -m bench.rig.counting ENDPOINT TGID EVENT[,EVENT]

Prints one JSON object when the publisher has gone quiet after standard input is closed: rows, and what
it checked: each row's event id and thread group, times that never go back, a sum of all results. TGID 0
stands for any: then the times of each thread group must not go back.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import zmq

from headrace.bpf.tables.catalogue import catalogue
from headrace.pipeline.transport.wire import read_columns


def main() -> None:
    """Count until told to end."""
    endpoint, tgid, names = sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")
    ids = np.array([catalogue().by_name[name].id for name in names], np.uint16)
    socket = zmq.Context().socket(zmq.SUB)
    socket.set(zmq.RCVHWM, 64)
    socket.connect(endpoint)
    socket.setsockopt(zmq.SUBSCRIBE, b"all/")
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    rows = wrong = backwards = messages = gaps = 0
    checksum = expected = 0
    last: dict[int, int] = {}
    by_event = np.zeros(1 << 16, np.int64)
    ending = 0.0
    lags: list[float] = []
    while not ending or time.monotonic() < ending:
        ready = dict(poller.poll(200))
        if sys.stdin.fileno() in ready and not ending:
            poller.unregister(sys.stdin.fileno())
            ending = time.monotonic() + 3
        if socket not in ready:
            continue
        _, header, payload = socket.recv_multipart(copy=False)
        sequence = json.loads(header.bytes)["sequence"]
        gaps += sequence - expected
        expected = sequence + 1
        columns = read_columns(payload.buffer)
        times, events = columns["timestamp"], columns["event"]
        rows += len(times)
        messages += 1
        groups = columns["contexts"]["tgid"]
        wrong += int((groups != tgid).sum()) if tgid else 0
        counts = np.bincount(events, minlength=1)
        by_event[: len(counts)] += counts
        for group in (tgid,) if tgid else np.unique(groups).tolist():
            mine = times if tgid else times[groups[columns["context"]] == group]
            backwards += int((mine[1:] < mine[:-1]).sum()) + int(mine[0] < last.get(group, 0))
            last[group] = int(mine[-1])
        checksum = (checksum + int(columns["retval"].sum(dtype=np.int64))) & (2**64 - 1)
        lags.append(time.time() - int(times[-1]) / 1e9)
        if ending:
            ending = time.monotonic() + 1
    wrong += int(by_event.sum() - by_event[ids].sum())
    tail = sorted(lags[-max(1, len(lags) // 20) :])
    report = {
        "rows": rows,
        "messages": messages,
        "gaps": gaps,
        "wrong": wrong,
        "backwards": backwards,
        "checksum": checksum,
        "lag_at_end_s": tail[len(tail) // 2] if tail else None,
        "by_event": {name: int(by_event[i]) for name, i in zip(names, ids.tolist(), strict=True)},
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
