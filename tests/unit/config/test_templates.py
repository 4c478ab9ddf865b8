"""Templates of lines: fields, escapes, and what is said of anything else."""

from __future__ import annotations

import pytest

from headrace.config.outputs import OutputError, parse
from headrace.config.templates import FIELDS, Template, TemplateError, of_fields
from headrace.config.templates import parse as parse_template


def test_texts_and_fields_in_turn() -> None:
    assert parse_template("%{time} 100%% %{args.pathname}\\t[%{comm}]\n") == Template(
        ("", " 100% ", "\t[", "]"), ("time", "args.pathname", "comm")
    )


def test_a_list_of_fields_is_separated_by_tabs() -> None:
    assert parse_template(of_fields("pid, comm,args.addr.port")) == Template(
        ("", "\t", "\t", ""), ("pid", "comm", "args.addr.port")
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("%{tim}", "no such field: tim; did you mean time?"),
        ("%{args}.x %{arg.x}", "no such field: arg.x"),
        ("%d", "a % that is neither %{FIELD} nor %%"),
        ("nothing", "no field is named"),
        ("%{}", "no such field: "),
        ("%{time}" + "x" * 5000, "more than 4096 characters"),
    ],
)
def test_what_is_no_template(text: str, says: str) -> None:
    with pytest.raises(TemplateError) as error:
        parse_template(text)
    assert says in str(error.value)


def test_outputs_take_fields_and_files(tmp_path: object) -> None:
    (sink,) = parse(["fields=time,pid:/tmp/x"]).sinks
    assert (sink.format, sink.target, sink.render) == ("template", "/tmp/x", "template:%{time}\\t%{pid}")
    with pytest.raises(OutputError, match="no such field: pids; did you mean pid"):
        parse(["fields=pids"])
    with pytest.raises(OutputError, match="No such file"):
        parse(["template:/nonexistent"])


def test_every_field_has_a_value() -> None:
    from headrace.workers.views.template import GETTERS

    assert {*GETTERS} | {"args"} == {*FIELDS}
