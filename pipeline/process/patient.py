"""Work that may hang in a system call: a thread does it, and is abandoned after a deadline.

A file system served by user space or by another host may never answer, and no signal interrupts such a call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MAX_STUCK = 8
"""Number of abandoned threads at which no more work is begun."""


class _Begun(NamedTuple, Generic[Q, A]):
    question: Q
    until: float
    answers: SimpleQueue[A]
    thread: threading.Thread


class Patient(Generic[Q, A]):
    """Does one piece of work at a time."""

    def __init__(self, work: Callable[[Q], A], deadline_s: float) -> None:
        self._work, self._deadline_s = work, deadline_s
        self._begun: _Begun[Q, A] | None = None
        self._stuck: list[threading.Thread] = []

    @property
    def is_busy(self) -> bool:
        """Whether work is in progress."""
        return self._begun is not None

    def begin(self, question: Q) -> bool:
        """Begin work. False if too many threads hang. Must not be called while busy."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= MAX_STUCK:
            return False
        answers: SimpleQueue[A] = SimpleQueue()
        thread = threading.Thread(target=lambda: answers.put(self._work(question)), daemon=True)
        self._begun = _Begun(question, time.monotonic() + self._deadline_s, answers, thread)
        thread.start()
        return True

    def ended(self, wait_s: float = 0.0) -> tuple[Q, A | None] | None:
        """The question and its answer if the work has ended; the answer is None if it was abandoned.

        None if there is no work, or if it is still in progress after `wait_s`.
        """
        begun = self._begun
        if begun is None:
            return None
        try:
            answer: A | None = begun.answers.get(timeout=wait_s) if wait_s > 0 else begun.answers.get_nowait()
        except Empty:
            if time.monotonic() < begun.until:
                return None
            answer = None
            self._stuck.append(begun.thread)
        self._begun = None
        return begun.question, answer
