"""What is known of containers: the table, what the enricher makes of what runtimes say, and of what they do not say."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.layout import RUNTIMES
from headrace.config.runtimes import FAILED, KNOWN, PENDING, SOCKETS, UNKNOWN, Endpoint, Info, RuntimeAnswer, endpoints
from headrace.config.settings import SettingsError
from headrace.pipeline.containers import accounts, enricher, enrichment
from headrace.pipeline.containers.enrichment import (
    ACCOUNT,
    CONTAINER,
    DATA_BYTES,
    GROUP,
    PROBES,
    USER,
    ContainerClient,
    ContainerTable,
    container_key,
    encoded,
)
from headrace.pipeline.containers.runtimes import Happened, Unavailable, of_labels
from headrace.pipeline.transport import doorbell
from headrace.pipeline.transport.doorbell import InheritedFd
from headrace.pipeline.transport.shm import Segment
from tests.live import wait_for

A, B, C = (container_key(bytes([n]) * 32) for n in (1, 2, 3))
DOCKER = RUNTIMES.index("docker")


def named(key: bytes) -> str:
    """A container's id as runtimes have it."""
    return key.removeprefix(CONTAINER).hex()


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(ContainerTable.size())
    yield made
    made.close()


@pytest.fixture
def table(segment: Segment) -> Iterator[ContainerTable]:
    made = ContainerTable(segment)
    yield made
    del made.head, made.entries, made._sequences


def same_place(table: ContainerTable, count: int) -> list[bytes]:
    """Ids that may stand in the same places of the table."""
    ids = (container_key(n.to_bytes(32, "little")) for n in itertools.count())
    return list(itertools.islice((name for name in ids if next(iter(table.places(name))) == 0), count))


def test_a_container_is_found_as_it_was_entered_last(table: ContainerTable) -> None:
    assert table.get(A) is None
    before = table.changes
    table.put(A, PENDING, Info())
    table.put(B, UNKNOWN, Info())
    table.put(A, KNOWN, Info(name="a", labels={"x": "y"}))
    assert answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="a", labels={"x": "y"}))
    assert answer_of(table, B) == RuntimeAnswer(UNKNOWN, Info())
    assert table.changes == before + 3
    assert table.states() == {"pending": 0, "known": 1, "unknown": 1, "failed": 0}
    table.remove(A)
    assert table.get(A) is None
    assert table.states()["known"] == 0


def test_where_there_is_no_room_the_oldest_goes_and_is_counted(table: ContainerTable) -> None:
    names = same_place(table, PROBES + 2)
    for name in names:
        table.put(name, KNOWN, Info(name=name.hex()))
    assert [table.get(name) is None for name in names] == [True, True] + [False] * PROBES
    assert table.counters()["evicted"] == 2


@given(
    st.builds(
        Info,
        name=st.text(max_size=3000),
        image=st.text(max_size=3000),
        labels=st.dictionaries(st.text(max_size=50), st.text(max_size=500), max_size=6),
    )
)
def test_what_has_no_room_is_cut_and_says_so(info: Info) -> None:
    data = encoded(info)
    assert len(data) <= DATA_BYTES
    shown = msgspec.msgpack.decode(data, type=Info)
    assert shown == info or (shown.cut and info.name.startswith(shown.name) and info.image.startswith(shown.image))


SHAPES = (("a", 900), ("b", 3), ("c", 1500))


def write_for_ever(name: str) -> None:
    """A process that changes one entry again and again."""
    table, n = ContainerTable(Segment(name=name)), 0
    infos = [Info(name=letter * size, image=letter) for letter, size in SHAPES]
    while True:
        n += 1
        table.put(A, KNOWN, infos[n % 3])


def test_half_an_entry_is_never_read(segment: Segment, table: ContainerTable) -> None:
    """A writer that never pauses against a reader: what is read is one of what was written, whole."""
    writer = multiprocessing.get_context("spawn").Process(target=write_for_ever, args=(segment.name,))
    writer.start()
    try:
        wait_for(lambda: table.get(A), "the writer")
        shapes, whole = set(), 0

        def enough() -> bool:
            nonlocal whole
            for answer in filter(None, (table.get(A) for _ in range(1000))):
                shapes.add((answer.info.image, len(answer.info.name), *set(answer.info.name)))
                whole += 1
            return len(shapes) == len(SHAPES) and whole > 3000

        wait_for(enough, "all shapes")
    finally:
        writer.kill()
        writer.join()
    assert shapes <= {(letter, size, letter) for letter, size in SHAPES}


def test_an_entry_that_a_death_left_half_written_is_none_until_it_is_written_again(table: ContainerTable) -> None:
    table.put(A, KNOWN, Info(name="a"))
    place = next(iter(table.places(A)))
    table.entries[place]["sequence"] |= np.uint64(1)
    assert table.get(A) is None
    table.put(A, KNOWN, Info(name="a"))
    assert answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="a"))


def test_a_worker_asks_once_and_looks_again_when_something_has_changed(segment: Segment, table: ContainerTable) -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        client = ContainerClient(segment.name, InheritedFd(write_end))
        assert [client.look(A, DOCKER).word for _ in range(3)] == ["pending"] * 3
        assert list(enrichment.requests(read_end)) == [(A, DOCKER)]
        table.put(A, FAILED, Info(reason="timeout"))
        assert client.changed()
        assert client.look(A, DOCKER).word == "failed:timeout"
        table.put(A, KNOWN, Info(name="a"))
        assert client.look(A, DOCKER).word == "failed:timeout", "what was seen holds until the change is"
        assert client.changed()
        assert client.look(A, DOCKER).known == Info(name="a")
        assert not client.changed()
    finally:
        os.close(read_end)
        os.close(write_end)


# -- the enricher's main loop, over runtimes that do what the tests want


class Played:
    """A runtime."""

    def __init__(self) -> None:
        self.answers: dict[str, Info | str | None] = {}
        """By id; a text is the reason why there is none."""
        self.asked: list[str] = []
        self.frozen = threading.Event()
        self.thawed = threading.Event()
        self.thaws_with = "timeout"
        self.happens: list[Happened] = []
        self.listened = 0
        self.hears = True

    def look(self, container: str) -> Info | None:
        self.asked.append(container)
        if self.frozen.is_set():
            self.thawed.wait(30)
            raise Unavailable(self.thaws_with)
        found = self.answers.get(container)
        if isinstance(found, str):
            raise Unavailable(found)
        return found

    def events(self) -> Iterator[Happened]:
        self.listened += 1
        if not self.hears:
            raise Unavailable("no socket")
        yield Happened("", "listening")
        while self.happens:
            yield self.happens.pop(0)
        raise Unavailable("no connection")


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> dict[str, Played]:
    """Runtimes by path; all pauses are short."""
    found = {path: Played() for path in ("/d1", "/d2", "/cri")}
    monkeypatch.setattr(enricher, "client", lambda endpoint, labels: found[endpoint.path])
    for name in ("FIRST_PAUSE_S", "RECONNECT_S", "RECHECK_S", "ATTEND_S"):
        monkeypatch.setattr(enricher, name, 0.001)
    monkeypatch.setattr(enricher, "MAX_PAUSE_S", 0.004)
    monkeypatch.setattr(enricher, "GONE_S", 0.05)
    return found


ENDPOINTS = (Endpoint("docker", "/d1"), Endpoint("docker", "/d2"), Endpoint("containerd", "/cri"))
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def until(table: ContainerTable, played: dict[str, Played]) -> tuple[enricher.Enricher, Until]:
    """An enricher, and what turns it until something holds."""
    made = enricher.Enricher(table, ENDPOINTS, ())
    return made, turner(made, start=True)


def turner(made: enricher.Enricher, start: bool = False) -> Until:
    """What turns an enricher until something holds."""
    if start:
        made.start()

    def turn(holds: Callable[[], bool]) -> None:
        def once() -> bool:
            made.hear()
            made.attend()
            return holds()

        wait_for(once, "the enricher")

    return turn


def answer_of(table: ContainerTable, key: bytes) -> RuntimeAnswer | None:
    """Without its time."""
    found = table.get(key)
    return found and msgspec.structs.replace(found, since_ns=0)


def word(table: ContainerTable, key: bytes) -> str:
    found = table.get(key)
    return found.word if found else ""


def test_all_runtimes_of_a_name_are_asked_and_who_knows_it_answers(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    played["/d2"].answers[named(A)] = Info(name="a")
    played["/cri"].answers[named(B)] = Info(name="b")
    made.want(A, DOCKER)
    made.want(B, 0)
    made.want(C, DOCKER)
    assert word(table, A) == "pending"
    turn(lambda: [word(table, key) for key in (A, B, C)] == ["known", "known", "unknown"])
    assert answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="a"))
    assert named(A) not in played["/cri"].asked
    assert table.counters()["asked"] >= 2 + 3 + 2


def test_what_nobody_knows_is_asked_for_again_until_somebody_does(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    played["/d1"].answers[named(A)] = "no connection"
    made.want(A, DOCKER)
    turn(lambda: word(table, A) == "failed:no connection")
    played["/d1"].answers[named(A)] = None
    turn(lambda: word(table, A) == "unknown")
    played["/d1"].answers[named(A)] = Info(name="late")
    turn(lambda: word(table, A) == "known")
    counted = table.counters()
    assert counted["failures"] >= 1
    assert counted["retries"] >= 2


def test_a_runtime_that_hangs_holds_up_nobody_else(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    played["/d1"].frozen.set()
    played["/d2"].answers[named(A)] = Info(name="a")
    made.want(C, DOCKER)
    turn(lambda: played["/d1"].asked != [])
    made.want(A, DOCKER)
    turn(lambda: word(table, A) == "known")
    assert word(table, C) == "pending"
    wait_for(lambda: made.attend() or table.counters()["oldest_pending_ms"] > 0, "its age")
    # all that waited behind it is told at once
    played["/d1"].answers[named(C)] = Info(name="c")
    played["/d1"].frozen.clear()
    played["/d1"].thawed.set()
    turn(lambda: word(table, C) == "known")
    assert table.counters()["timeouts"] >= 1


def test_an_answer_that_comes_byte_by_byte_is_given_up(
    table: ContainerTable,
    played: dict[str, Played],
    until: tuple[enricher.Enricher, Until],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enricher, "OVERDUE_S", 0.02)
    made, turn = until
    played["/cri"].frozen.set()
    made.want(B, RUNTIMES.index("containerd"))
    turn(lambda: word(table, B) == "failed:timeout")
    played["/cri"].answers[named(B)] = Info(name="b")
    played["/cri"].frozen.clear()
    played["/cri"].thawed.set()
    turn(lambda: word(table, B) == "known")


def test_what_a_runtime_says_by_itself_is_followed(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    _, turn = until
    docker = played["/d1"]
    docker.answers[named(A)] = Info(name="before")
    docker.happens.append(Happened(named(A), "changed"))
    turn(lambda: word(table, A) == "known")
    docker.answers[named(A)] = Info(name="after")
    docker.happens += [Happened("nonsense", "changed"), Happened("ab", "gone"), Happened(named(A), "changed")]
    turn(lambda: answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="after")))
    docker.answers[named(A)] = None
    docker.happens.append(Happened(named(A), "gone"))
    turn(lambda: table.get(A) is None)
    assert sum(table.states().values()) == 0


def test_what_is_known_stays_so_while_its_runtime_does_not_answer(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    played["/d1"].answers[named(A)] = Info(name="a")
    made.want(A, DOCKER)
    turn(lambda: word(table, A) == "known")
    played["/d1"].answers[named(A)] = "timeout"
    asked = len(played["/d1"].asked)
    turn(lambda: len(played["/d1"].asked) > asked + 3)
    assert word(table, A) == "known"


def test_a_successor_goes_on_with_the_table(table: ContainerTable, played: dict[str, Played]) -> None:
    table.put(A, KNOWN, Info(name="old"))
    played["/d1"].answers[named(A)] = Info(name="new")
    table.put(B, FAILED, Info(reason="timeout"), DOCKER)
    before = table.changes
    made = enricher.Enricher(table, ENDPOINTS, ())
    assert answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="old"))
    assert table.changes > before, "its predecessor may have died before it could say so"
    made.start()
    played["/d2"].answers[named(B)] = Info(name="b")
    turn = turner(made)
    turn(lambda: answer_of(table, A) == RuntimeAnswer(KNOWN, Info(name="new")))
    turn(lambda: word(table, B) == "known")
    assert named(B) not in played["/cri"].asked, "which runtime it is of is known"


def test_what_a_predecessor_knew_stays_while_its_runtime_does_not_answer(
    table: ContainerTable, played: dict[str, Played]
) -> None:
    names = [container_key(n.to_bytes(32, "big")) for n in range(1500)]
    for name in names:
        table.put(name, KNOWN, Info(name="n"), DOCKER)
    for one in played.values():
        one.answers |= {named(name): "timeout" for name in names}
    turn = turner(enricher.Enricher(table, ENDPOINTS, ()), start=True)
    turn(lambda: len(played["/d1"].asked) > 50)
    assert table.states() == {"pending": 0, "known": 1500, "unknown": 0, "failed": 0}


def test_a_runtime_that_is_not_there_has_nothing_asked_again(
    table: ContainerTable, played: dict[str, Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enricher, "RECHECK_S", 3600)
    played["/d1"].answers[named(A)] = Info(name="a")
    for one in played.values():
        one.hears = False
    made = enricher.Enricher(table, ENDPOINTS, ())
    turn = turner(made, start=True)
    made.want(A, DOCKER)
    turn(lambda: word(table, A) == "known")
    turn(lambda: played["/d2"].listened > 20)
    assert played["/d1"].asked == [named(A)]
    played["/cri"].hears = True
    turn(lambda: played["/cri"].listened > 60)
    assert played["/d1"].asked == [named(A)], "of another runtime"
    played["/d1"].hears = True
    turn(lambda: played["/d1"].asked == [named(A)] * 2)


def test_one_answer_that_makes_no_sense_is_one_containers_alone(
    table: ContainerTable, played: dict[str, Played], until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    played["/d1"].frozen.set()
    played["/d1"].thaws_with = "nonsense"
    played["/d1"].answers |= {named(B): Info(name="b")}
    made.want(A, DOCKER)
    turn(lambda: played["/d1"].asked != [])
    made.want(B, DOCKER)
    played["/d1"].frozen.clear()
    played["/d1"].thawed.set()
    turn(lambda: word(table, B) == "known")
    assert table.counters()["timeouts"] == 0


def test_answers_that_say_the_same_change_nothing_even_if_they_are_cut(table: ContainerTable) -> None:
    long = Info(name="a", labels={"x": "y" * 3000})
    table.put(A, KNOWN, long)
    before, first = table.changes, table.get(A)
    table.put(A, KNOWN, long)
    assert table.changes == before
    table.put(A, KNOWN, Info(name="b"))
    assert table.changes == before + 1
    after = table.get(A)
    assert (after and after.since_ns) == (first and first.since_ns), "who waits for the first answer has had it"


def test_a_user_is_no_container_whatever_that_is_called(table: ContainerTable) -> None:
    user = ACCOUNT.pack(USER, 0, b"")
    table.put(user, KNOWN, Info(name="root"), enrichment.ACCOUNTS)
    twin = container_key(user[8:])
    assert table.get(twin) is None
    table.put(twin, UNKNOWN, Info())
    assert word(table, user) == "known"
    assert table.states()["unknown"] == 1


def test_a_name_of_a_user_that_is_no_text_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        pw_name = "caf\udce9"

    monkeypatch.setattr("pwd.getpwuid", lambda number: Entry)
    assert accounts.Accounts().look(ACCOUNT.pack(USER, 0, b"").hex()) == Info(name="caf?")


def test_a_question_that_got_lost_is_asked_again(
    segment: Segment, table: ContainerTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (enrichment, doorbell):
        monkeypatch.setattr(module, "AGAIN_S", 0.01)
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        client = ContainerClient(segment.name, InheritedFd(write_end))
        assert client.look(A, DOCKER).word == "pending"
        assert list(enrichment.requests(read_end)) == [(A, DOCKER)]
        # nobody has taken it up, and nobody looks: a piece of a line was made of it
        wait_for(lambda: not client.changed() and list(enrichment.requests(read_end)) == [(A, DOCKER)], "another")
        table.put(A, KNOWN, Info(name="a"))
        assert client.changed()
        assert client.look(A, DOCKER).word == "known"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_what_had_to_make_room_is_asked_for_again(
    table: ContainerTable,
    played: dict[str, Played],
    until: tuple[enricher.Enricher, Until],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enricher, "RECHECK_S", 3600)
    for one in played.values():
        one.hears = False
    made, turn = until
    names = same_place(table, PROBES + 1)
    played["/d1"].answers |= {named(name): Info(name=name.hex()) for name in names}
    for name in names:
        made.want(name, DOCKER)
        turn(lambda name=name: word(table, name) == "known")
    assert table.get(names[0]) is None
    made.want(names[0], DOCKER)
    turn(lambda: word(table, names[0]) == "known")


def test_users_are_spread_over_the_table(table: ContainerTable) -> None:
    for number in range(500):
        for word in (USER, GROUP):
            table.put(ACCOUNT.pack(word, number, b""), KNOWN, Info(name=str(number)))
    assert table.counters()["evicted"] == 0


def test_a_million_containers_are_bounded(
    table: ContainerTable, played: dict[str, Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enricher, "ENTRIES", 50)
    made = enricher.Enricher(table, ENDPOINTS, ())
    made.start()
    for n in range(2000):
        made.want(container_key(n.to_bytes(8, "little") * 4), DOCKER)
        made.hear()
    assert len(made._wanted) == 50
    assert sum(table.states().values()) <= 50
    assert table.counters()["evicted"] >= 2000 - 50


def test_users_and_groups_of_the_host_by_their_names(
    segment: Segment, table: ContainerTable, until: tuple[enricher.Enricher, Until]
) -> None:
    made, turn = until
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        client = ContainerClient(segment.name, InheritedFd(write_end))
        assert (client.user(0), client.group(0), client.user(4_000_000_000)) == ("", "", "")
        for key, runtime in enrichment.requests(read_end):
            made.want(key, runtime)

        def known() -> tuple[str, ...]:
            client.changed()
            return client.user(0), client.group(0), client.user(4_000_000_000)

        turn(lambda: known() == ("root", "root", ""))
        assert sum(table.states().values()) == 0, "they are no containers"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_labels_of_pods_and_those_that_are_wanted() -> None:
    labels = {
        "io.kubernetes.pod.name": "p",
        "io.kubernetes.pod.namespace": "n",
        "io.kubernetes.pod.uid": "u",
        "a.b": "c",
    }
    found = of_labels(labels, ("a.*",))
    assert found == {"pod": "p", "namespace": "n", "pod_uid": "u", "labels": {"a.b": "c"}}
    assert of_labels(None, ("*",)) == {}


# -- where they are asked


def test_the_usual_sockets_and_those_that_are_named() -> None:
    assert {e.runtime for e in endpoints(())} == set(SOCKETS)
    assert endpoints(("docker:/a/b", "cri-o:unix:///c", "podman")) == (
        Endpoint("docker", "/a/b"),
        Endpoint("crio", "/c"),
        Endpoint("podman", "/run/podman/podman.sock"),
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("dcoker:/x", "no such runtime: dcoker (there are: docker, containerd, crio, podman); did you mean docker?"),
        ("docker:x", "a socket's path is absolute, such as docker:/var/run/docker.sock"),
        ("docker:", "a socket's path is absolute"),
        ("", "no such runtime"),
    ],
)
def test_sockets_that_make_no_sense_are_refused(spec: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        endpoints((spec,))
    assert why in str(refused.value)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.config.runtimes.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs docker and grpc, .* pip install 'headrace\[containers\]'"):
        endpoints(())
    with pytest.raises(SettingsError, match="needs docker, not installed"):
        endpoints(("docker:/x",))
