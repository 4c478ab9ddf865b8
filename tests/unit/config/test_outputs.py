"""Output specifications, headrace's and Tracee's."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.config.outputs import FORMATS, OPTIONS, Output, OutputError, Outputs, check_shared, parse


def one(text: str) -> Output:
    found = parse([text])
    assert len(found.sinks) == 1
    return found.sinks[0]


def refused(*specs: str) -> str:
    with pytest.raises(OutputError) as raised:
        parse(specs)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("table", Output("table", "-", "table", "block")),
        ("table:-", Output("table", "-", "table", "block")),
        ("json:/tmp/x", Output("json", "/tmp/x", "json", "block")),
        ("json:-,policy=drop", Output("json", "-", "json", "drop")),
        ("none", Output("none", "", "none", "block")),
        ("zmq:ipc:///run/h", Output("zmq", "ipc:///run/h", "json", "drop")),
        (
            "zmq:tcp://127.0.0.1:5,format=columns,queue=7,policy=block",
            Output("zmq", "tcp://127.0.0.1:5", "columns", "block", 7),
        ),
    ],
)
def test_a_specification_is_a_sink(text: str, expected: Output) -> None:
    assert one(text) == expected


def test_arrow_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one("arrow:/tmp/x").render == one("zmq:ipc:///run/h,format=arrow").render == "arrow"
    monkeypatch.setattr("headrace.config.outputs.find_spec", lambda name: None)
    for text in ("arrow:/tmp/x", "zmq:ipc:///run/h,format=arrow"):
        assert "pip install 'headrace[arrow]'" in refused(text)


def test_nothing_asked_for_is_a_table_on_standard_output() -> None:
    assert parse([]).sinks == (Output("table", "-", "table", "block"),)


def test_a_name_is_what_was_asked_for() -> None:
    assert one("json:-").name == "json:-"
    assert one("none").name == "none"


def test_several_sinks_keep_their_order() -> None:
    assert [s.name for s in parse(["json:/a", "table:-", "none"]).sinks] == ["json:/a", "table:-", "none"]


@pytest.mark.parametrize(
    ("specs", "name"),
    [
        (["format:json"], "json:-"),
        (["format:json", "out-file:/tmp/x"], "json:/tmp/x"),
        (["out-file:/tmp/x"], "table:/tmp/x"),
        (["format:table-verbose"], "table:-"),
        (["format:none", "out-file:/tmp/x"], "none"),
    ],
)
def test_tracees_format_and_out_file_are_understood(specs: list[str], name: str) -> None:
    assert [s.name for s in parse(specs).sinks] == [name]


@pytest.mark.parametrize(
    ("option", "switches"),
    [
        ("parse-arguments", {"parse_arguments": True}),
        ("no-parse-arguments", {"parse_arguments": False}),
        ("detect-syscall", {"detect_syscall": True}),
        ("relative-time", {"relative_time": True}),
        ("stack-addresses", {"stack_addresses": True}),
        ("exec-env", {"exec_environment": True}),
        ("sort-events", {}),
    ],
)
def test_tracees_options_are_switches(option: str, switches: dict[str, bool]) -> None:
    assert parse([f"option:{option}"]) == Outputs((Output("table", "-", "table", "block"),), switches)


@pytest.mark.parametrize("text", ["jsn:-", "format:gob", "xml"])
def test_a_format_that_does_not_exist_is_answered_with_those_that_do(text: str) -> None:
    message = refused(text)
    assert all(name in message for name in FORMATS)


def test_an_option_that_does_not_exist_is_answered_with_those_that_do() -> None:
    assert all(name in refused("json:-,polcy=drop") for name in OPTIONS)
    assert "parse-arguments" in refused("option:parse-argument")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("json:-,policy=wait", "block or drop, not 'wait'"),
        ("zmq:ipc:///x,format=table", "json, columns or arrow, not 'table'"),
        ("zmq:ipc:///x,queue=0", "from 1 to 100000"),
        ("zmq:ipc:///x,queue=many", "from 1 to 100000"),
        ("zmq:ipc:///x,queue=100001", "from 1 to 100000"),
        ("zmq:/run/x", "needs an endpoint"),
        ("zmq", "needs an endpoint"),
        ("none:-", "takes no destination"),
        ("json:-,policy", "no such option"),
    ],
)
def test_what_is_wrong_is_said(text: str, reason: str) -> None:
    assert reason in refused(text)


@pytest.mark.parametrize("text", ["json:-,format=columns", "json:-,queue=5", "none,queue=5"])
def test_an_option_that_does_nothing_there_is_refused(text: str) -> None:
    assert refused(text)


@pytest.mark.parametrize("specs", [("json:-", "table:-"), ("json:/a", "json:/a"), ("json", "format:table")])
def test_two_sinks_cannot_share_a_destination(specs: tuple[str, ...]) -> None:
    assert "same destination" in refused(*specs)


def test_counting_beside_a_sink_is_no_conflict() -> None:
    assert len(parse(["none", "json:-"]).sinks) == 2


SPEC = st.builds(
    "{}:{}{}".format,
    st.sampled_from([*FORMATS, "format", "out-file", "option", ""]),
    st.text(max_size=5) | st.just("ipc:///x"),
    st.sampled_from(["", ",policy=drop", ",queue=9", ",format=json", ","]),
)


@given(st.lists(SPEC | st.text(max_size=9), max_size=3))
@example(["zmq:ipc:///x,queue=²"])
def test_anything_is_outputs_or_an_output_error(specs: list[str]) -> None:
    try:
        found = parse(specs)
    except OutputError:
        return
    assert found.sinks
    assert all(s.format in FORMATS for s in found.sinks)


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://0.0.0.0:1", "tcp://*:1", "tcp://[::]:1", "tcp://192.0.2.1:1", "tcp://eth0:1", "tcp://127.0.0.1.evil:1"]
    + ["udp://127.0.0.1:1", "ws://127.0.0.1:1"],
)
def test_an_endpoint_that_other_hosts_reach_needs_insecure(endpoint: str) -> None:
    assert "insecure=yes" in refused(f"zmq:{endpoint}")
    assert one(f"zmq:{endpoint},insecure=yes").target == endpoint


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1", "ipc:///run/x"])
def test_an_endpoint_of_this_host_needs_nothing(endpoint: str) -> None:
    assert one(f"zmq:{endpoint}").target == endpoint


def test_truncate_is_for_files() -> None:
    assert one("json:x,truncate=yes").truncate
    assert not one("json:x").truncate
    assert "no option 'truncate'" in refused("zmq:ipc:///x,truncate=yes")
    assert "yes or no" in refused("json:x,truncate=1")


def test_an_endpoint_that_other_hosts_reach_needs_both_keys_and_clients() -> None:
    found = one("zmq:tcp://*:1,key=/k,clients=/c")
    assert (found.key, found.clients) == ("/k", "/c")
    assert "clients=FILE" in refused("zmq:tcp://*:1,key=/k")
    assert one("zmq:tcp://127.0.0.1:1,key=/k").key == "/k"
    assert one("zmq:ipc:///x,key=/k").key == "/k"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zmq:ipc:///x,clients=/c", "clients= needs key="),
        ("zmq:ipc:///x,key=", "key= needs a file"),
        ("zmq:tcp://*:1,key=/k,clients=", "clients= needs a file"),
        ("zmq:udp://*:1,key=/k,clients=/c", "nothing else is encrypted"),
        ("zmq:pgm://eth0:1,key=/k,clients=/c,insecure=yes", "nothing else is encrypted"),
        ("json:-,key=/k", "no option 'key'"),
    ],
)
def test_keys_that_protect_nothing_are_refused(text: str, reason: str) -> None:
    assert reason in refused(text)


def test_one_endpoint_has_one_set_of_keys() -> None:
    keyed, plain = one("zmq:ipc:///x,key=/k"), one("zmq:ipc:///x")
    check_shared([keyed, keyed, one("zmq:ipc:///y"), one("json:-")])
    with pytest.raises(OutputError, match="same key="):
        check_shared([keyed, plain])
