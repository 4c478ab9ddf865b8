"""Reads headrace's JSON lines and sums up what they say of containers: a reader for bench/containers.py and its tests.

python -m bench.rig.container_events < EVENTS      prints a Summary as JSON
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import BinaryIO

import msgspec

MARKER = re.compile(rb"HR-MARK-[A-Za-z0-9]+")


class Event(msgspec.Struct):
    """What is read of a line."""

    timestamp: int
    hostProcessId: int
    containerId: str
    containerName: str
    containerImage: str
    enrichment: str = ""


class Container(msgspec.Struct):
    """What events said of one container."""

    events: int = 0
    first_ns: int = 0
    last_ns: int = 0
    names: dict[str, int] = {}
    """Events by name and image, joined by a blank, and by state if that is not known."""
    not_known_until_ns: int = 0
    """Time of the last event that had no name, 0 if all had."""


class Summary(msgspec.Struct):
    """What all lines said."""

    lines: int = 0
    bytes: int = 0
    wrong: int = 0
    """Lines that are no event."""
    containers: dict[str, Container] = {}
    markers: dict[str, list[str]] = {}
    """Ids of the containers that events with a marker in them had."""


def summary(lines: Iterable[bytes]) -> Summary:
    """Of JSON lines."""
    found = Summary()
    decoder = msgspec.json.Decoder(Event)
    for line in lines:
        found.lines += 1
        found.bytes += len(line)
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            found.wrong += 1
            continue
        one = found.containers.get(event.containerId)
        if one is None:
            one = found.containers[event.containerId] = Container(first_ns=event.timestamp)
        one.events += 1
        one.first_ns, one.last_ns = min(one.first_ns, event.timestamp), max(one.last_ns, event.timestamp)
        known = event.enrichment == "known"
        name = f"{event.containerName} {event.containerImage}" if known else event.enrichment
        one.names[name] = one.names.get(name, 0) + 1
        if not known:
            one.not_known_until_ns = max(one.not_known_until_ns, event.timestamp)
        for marker in set(MARKER.findall(line)):
            ids = found.markers.setdefault(marker.decode(), [])
            if event.containerId not in ids:
                ids.append(event.containerId)
    return found


def main(file: BinaryIO) -> None:
    """Sum up a file."""
    sys.stdout.buffer.write(msgspec.json.encode(summary(file)))


if __name__ == "__main__":
    main(sys.stdin.buffer)
