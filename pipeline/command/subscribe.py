"""Implementation of `headrace subscribe`: prints the messages of a publisher and counts missed ones."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from headrace.pipeline.api.errors import Error, ProtocolError, RefusedError
from headrace.pipeline.api.messages import Gap
from headrace.pipeline.api.subscriber import Subscriber
from headrace.pipeline.process.failure import EX_USAGE, say

EX_UNAVAILABLE, EX_PROTOCOL, EX_NOPERM = 69, 76, 77
DOUBT = "is it a publisher of headrace, and --server-key its key?"
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Stop(Exception):
    """A signal ended the subscription."""


class _Ending:
    """Signal handler that raises Stop at the first signal and ignores all later ones."""

    def __init__(self) -> None:
        self.over = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self.over:
            self.over = True
            raise Stop


def run(endpoint: str, topics: Sequence[str], count: int, server_key: str = "", key: str = "") -> int:
    """Print messages until a signal, or until `count` events were printed (0: no limit). Returns the exit status."""
    ending = _Ending()

    def doubt() -> None:
        say(f"headrace: {endpoint}: handshake failed, trying again: {DOUBT}", err=True)

    try:
        subscriber = Subscriber(endpoint, topics, server_key=server_key, key=key, on_doubt=doubt)
    except Error as error:
        say(f"headrace: {error}", err=True)
        return EX_USAGE
    events = missed = status = 0
    try:
        for number in ENDING:
            signal.signal(number, ending)
        for message in subscriber.messages():
            if isinstance(message, Gap):
                missed += message.missed
                continue
            text = message.lines()
            if count and len(message) > count - events:
                text = "\n".join(text.split("\n")[: count - events]) + "\n"
            events += min(len(message), count - events) if count else len(message)
            sys.stdout.write(text)
            sys.stdout.flush()
            if count and events >= count:
                break
    except Stop:
        pass
    except ImportError:
        status = EX_UNAVAILABLE
        say("headrace: the payload is Arrow: pip install 'headrace[arrow]'", err=True)
    except RefusedError as error:
        status = EX_NOPERM
        say(f"headrace: {error}", err=True)
    except ProtocolError as error:
        status = EX_PROTOCOL
        say(f"headrace: {endpoint}: {error}", err=True)
    finally:
        ending.over = True
        subscriber.close()
        say(f"subscribed: events {events}  messages missed {missed}", err=True)
    return status
