"""What signatures in Python keep: which events changed it, and the bounds."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import pytest

from headrace.workers.detect.code import states
from headrace.workers.detect.code.states import Given, Kept, States


def given(at: int, process: int = 1, child: int | None = None) -> Given:
    """An event of a process."""
    return Given(at, "openat", 1000 + at, process, "", {}, child)


def lines(at: Sequence[int]) -> list[bytes]:
    """What findings show of events."""
    return [b"line %d" % each for each in at]


def shown(known: States, event: Given) -> list[bytes]:
    """What a finding of that event would show."""
    return known.of(event).caused().events()


def test_an_event_is_a_cause_if_it_sets_or_deletes_a_key() -> None:
    known = States("process")
    for at in range(6):
        state = known.of(given(at))
        if at in (1, 3):
            state["seen"] = at
            state["other"] = 0
        if at == 4:
            state["seen"] = 3  # as it was
            state.get("other")
        if at == 5:
            del state["other"]
        known.note(state, given(at))
    known.show(lines)
    assert shown(known, given(9)) == [b"line 1", b"line 3", b"line 5"]
    assert known.of(given(9)).caused().began_ns == 1000
    assert shown(known, given(9, process=2)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update({"b": 1}),
        lambda state: state.update(b=1),
        lambda state: state.setdefault("b", 1),
        lambda state: state.pop("a"),
        lambda state: state.popitem(),
        lambda state: operator.ior(state, {"b": 1}),
        lambda state: state.pop("b", None) or operator.setitem(state, "a", None),
    ],
)
def test_every_way_to_change_a_dictionary_is_noticed(change: Callable[[Kept], object]) -> None:
    state = Kept(0)
    state["a"] = state["z"] = 0
    state.changed = False
    plain = dict(state)
    change(state)
    assert state.changed
    assert state != plain


@pytest.mark.parametrize(
    "look",
    [
        lambda state: state.update({}),
        lambda state: state.setdefault("a", 1),
        lambda state: state.pop("b", None),
        lambda state: operator.or_(state, {"b": 1}),
        lambda state: state.copy(),
    ],
)
def test_to_look_is_no_change(look: Callable[[Kept], object]) -> None:
    state = Kept(0)
    state["a"] = 0
    state.changed = False
    assert type(look(state)) is not Kept
    assert not state.changed
    assert state == {"a": 0}


def test_a_state_that_is_empty_again_has_no_causes() -> None:
    known = States("process")
    for at, change in enumerate(({"a": 1}, None, {"b": 1})):
        state = known.of(given(at))
        state.clear() if change is None else state.update(change)
        known.note(state, given(at))
    known.show(lines)
    assert shown(known, given(9)) == [b"line 2"]


def test_a_line_that_is_too_long_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "MAX_LINE", 10)
    known = States("process")
    for at in range(3):
        state = known.of(given(at))
        state["at"] = at
        known.note(state, given(at))
    known.show(lambda numbers: [b"x" * (11 if number == 1 else 10) for number in numbers])
    caused = known.of(given(9)).caused()
    assert (caused.events(), caused.left_out()) == ([b"x" * 10] * 2, 1)


def test_what_keeps_nothing_has_no_causes() -> None:
    known = States("")
    state = known.of(given(0))
    state["seen"] = 1
    known.note(state, given(0))
    assert dict(known.of(given(1))) == {}
    assert (len(known), shown(known, given(1))) == (0, [])


def test_a_child_has_the_causes_of_its_creator_and_then_its_own() -> None:
    known = States("fork")
    for at, process in ((0, 1), (2, 2), (3, 1)):
        state = known.of(given(at, process))
        state[str(at)] = at
        known.note(state, given(at, process))
        if at == 0:
            known.forked(given(1, 1, child=2))
    known.show(lines)
    assert shown(known, given(9, 2)) == [b"line 0", b"line 2"]
    assert shown(known, given(9, 1)) == [b"line 0", b"line 3"]
    assert dict(known.of(given(9, 2))) == {"0": 0, "2": 2}


def test_the_latest_are_kept_and_the_others_counted() -> None:
    known = States("process")
    for at in range(states.MAX_CAUSES + 5):
        state = known.of(given(at))
        state["at"] = at
        known.note(state, given(at))
    known.show(lines)
    assert shown(known, given(99)) == [b"line %d" % at for at in range(5, states.MAX_CAUSES + 5)]
    assert known.of(given(99)).caused().omitted == 5


def test_bytes_are_bounded_and_the_longest_unused_give_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "MAX_CAUSE_BYTES", 1000)
    known = States("process")
    for at in range(40):
        state = known.of(given(at, process=at))
        state["at"] = at
        known.note(state, given(at))
        known.show(lambda numbers: [bytes(100)] * len(numbers))
        kept = [known._known[p].causes for p in range(at + 1)]
        assert sum(len(causes) for causes in kept) <= 10
    assert [len(causes) for causes in kept[-3:]] == [1, 1, 1]
    assert known.of(given(99, process=0)).caused().omitted == 1


def test_the_oldest_state_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "MAX_STATES", 3)
    known = States("process")
    for at, process in enumerate((1, 2, 3, 1, 4)):
        known.of(given(at, process))["process"] = process
    assert (len(known), known.evicted) == (3, 1)
    assert dict(known.of(given(9, 2))) == {}
    assert dict(known.of(given(9, 1))) == {"process": 1}
