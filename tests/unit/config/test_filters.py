"""Event expressions: what the kernel decides, what the workers decide, and what could never match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import UnknownName, catalogue
from headrace.config.filters import FilterError, Selection, parse

LOWEST, HIGHEST = -(2**63), 2**63 - 1


def asked(*expressions: str) -> Selection:
    return parse(expressions, catalogue())


def refused(*expressions: str) -> str:
    with pytest.raises((FilterError, UnknownName)) as raised:
        asked(*expressions)
    return str(raised.value)


def names(selection: Selection) -> set[str]:
    return {event.name for event in selection.events}


def test_events_without_conditions_are_just_selected() -> None:
    found = asked("openat,close")
    assert (names(found), found.retval, found.conditions) == ({"openat", "close"}, (), ())


def test_a_condition_selects_its_event() -> None:
    found = asked("openat.args.pathname=/tmp/*")
    assert names(found) == {"openat"}
    condition = found.conditions[0]
    assert (condition.event.name, condition.argument, condition.op, condition.values) == ("openat", 1, "=", ("/tmp/*",))


@pytest.mark.parametrize("spelling", ["openat.args.flags=1", "openat.data.flags=1", "openat.flags=1"])
def test_tracees_spellings_of_an_argument_are_one(spelling: str) -> None:
    condition = asked(spelling).conditions[0]
    assert (condition.argument, condition.op, condition.values) == (2, "=", ("1",))


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        ("=-2", -2, -2),
        ("<0", LOWEST, -1),
        ("<=0", LOWEST, 0),
        (">0", 1, HIGHEST),
        (">=0", 0, HIGHEST),
    ],
)
def test_a_range_of_results_goes_to_the_kernel(op: str, low: int, high: int) -> None:
    found = asked(f"openat.retval{op}")
    assert found.retval == (("openat", low, high),)
    assert found.conditions == ()


def test_results_are_named_as_tables_show_them() -> None:
    assert asked("openat.retval=-ENOENT").retval == (("openat", -2, -2),)
    assert asked("openat.retval>=-EAGAIN").retval == asked("openat.retval>=-EWOULDBLOCK").retval
    (condition,) = asked("openat.retval=-ENOENT,-EACCES").conditions
    assert condition.values == ("-2", "-13")


def test_what_people_try_first_is_hinted_at() -> None:
    assert "did you mean '*' (every event)?" in refused("all")
    assert "did you mean set=net?" in refused("network")


def test_ranges_of_one_event_are_cut_with_each_other() -> None:
    assert asked("openat.retval<0,openat.retval>=-13").retval == (("openat", -13, -1),)


@pytest.mark.parametrize("text", ["openat.retval!=0", "openat.retval=-2,-13"])
def test_results_that_are_no_range_stay_with_the_workers(text: str) -> None:
    found = asked(text)
    assert found.retval == ()
    assert found.conditions[0].argument is None


def test_a_part_that_looks_like_a_value_continues_the_condition_before() -> None:
    found = asked("openat.args.pathname=/etc/*,/tmp/*,close")
    assert found.conditions[0].values == ("/etc/*", "/tmp/*")
    assert names(found) == {"openat", "close"}
    assert asked("close.args.fd=1,2").conditions[0].values == ("1", "2")


def test_words_continue_a_condition_and_names_do_not() -> None:
    found = asked("openat.args.flags=O_RDWR,O_WRONLY|O_CREAT,close")
    assert found.conditions[0].values == ("O_RDWR", "O_WRONLY|O_CREAT")
    assert names(found) == {"openat", "close"}


def test_sets_and_conditions_combine() -> None:
    found = asked("openat.retval<0,signals")
    assert "openat" in names(found)
    assert "kill" in names(found)


def test_what_cannot_be_provided_is_set_apart_when_a_set_brought_it() -> None:
    found = asked("proc")
    assert "do_exit" in {e.name for e in found.skipped}
    assert "do_exit" not in names(found)


def test_what_cannot_be_provided_is_refused_when_it_was_named() -> None:
    assert refused("dns_request").startswith("dns_request: headrace does not look into packets")


@pytest.mark.parametrize(
    ("text", "wrong", "meant"),
    [
        ("opnat", "opnat", "openat"),
        ("opnat.args.pathname=x", "opnat", "openat"),
        ("openat.args.pathnam=x", "pathnam", "pathname"),
        ("openat.flag=1", "flag", "flags"),
        ("openat.retva=0", "retva", None),
        ("proc_lif", "proc_lif", "proc_life"),
    ],
)
def test_a_misspelt_name_is_named_with_its_suggestion(text: str, wrong: str, meant: str | None) -> None:
    message = refused(text)
    assert wrong in message
    if meant:
        assert f"did you mean {meant}?" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sched_process_exec.retval=0", "no result"),
        ("exit_group.retval=0", "no result"),
        ("openat.retval=x", "neither a 64-bit number nor an error such as -ENOENT"),
        ("openat.retval=9223372036854775808", "neither a 64-bit number"),
        ("openat.retval<1,2", "takes one value"),
        ("openat.args.pathname<x", "takes = and !="),
        ("openat.args.pathname=", "a value is missing"),
        ("openat.retval<0,openat.retval>0", "contradict"),
        ("openat.retval=1,openat.retval=2", "contradict"),
        ("close.args.fd=08", "neither a number"),
        ("close.args.fd=5,close.args.fd<3", "contradict"),
        ("close.args.fd=5,close.args.fd!=0x5", "contradict"),
        ("close.args.fd>5,close.args.fd<6", "contradict"),
        ("openat.retval<-9223372036854775808", "nothing can match"),
    ],
)
def test_what_can_never_match_is_refused_with_the_reason(text: str, reason: str) -> None:
    assert reason in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "openat.args.mode<abc",  # an order needs a number
        "close.args.fd=abc",  # a descriptor has no words
        "openat.args.mode<1,2",  # an order takes one value
        "connect.args.addr=127.0.0.1",  # compared with an address in memory
    ],
)
def test_a_value_that_an_argument_cannot_have_is_refused(text: str) -> None:
    assert refused(text)


PART = st.builds(
    "{}.{}{}{}".format,
    st.sampled_from(["openat", "close", "nothing", "execve", "!openat", "*"]),
    st.sampled_from(["args.pathname", "retval", "args.fd", "data.flags", "argv", ""]),
    st.sampled_from(["=", "!=", "<", ">=", ""]),
    st.text(max_size=5),
)


@given(st.lists(PART | st.text(max_size=8), max_size=3))
def test_anything_is_a_selection_or_an_error(expressions: list[str]) -> None:
    try:
        found = parse(expressions, catalogue())
    except (FilterError, UnknownName):
        return
    assert isinstance(found, Selection)
    assert all(low <= high for _, low, high in found.retval)


@pytest.mark.parametrize("text", ["openat.retval=", "openat.retval<", "close.fd=", "close.fd>0x", "openat.flags=O_"])
def test_a_value_of_more_digits_than_python_takes_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        parse([text + "9" * 5000], catalogue())
