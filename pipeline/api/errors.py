"""What the Python API raises."""

from __future__ import annotations

from headrace.pipeline.transport.wire import WireError


class Error(Exception):
    """headrace cannot do what it was asked for; the text says why and, if it can be mended, how."""


class RefusedError(Error):
    """The publisher refuses this subscriber; it would refuse it again."""


class ProtocolError(Error, WireError):
    """What comes is not from a publisher of headrace. `why`: what is wrong with it."""

    def __init__(self, why: object) -> None:
        super().__init__(f"not a publisher of headrace: {why}")
