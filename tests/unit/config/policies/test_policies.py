"""Policies in files: headrace's own form, what is wrong with them, and what their parts become."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import no_hook
from headrace.config.policies.claims import Claim, claims_of, event_masks, mask_of, names_of, rule_masks, union
from headrace.config.policies.files import read_policies
from headrace.config.policies.policy import Policy, PolicyError
from headrace.config.rules import Rule

OWN = """\
name: web
description: what it says
scope: [container, uid=33]
events: [execve, openat.args.pathname=/etc/*]
signatures: TRC-1
output: json:/tmp/web
"""


def read(folder: Path, text: str) -> tuple[Policy, ...]:
    (folder / "p.yaml").write_text(text)
    return read_policies([str(folder / "p.yaml")], catalogue())


def claims(*policies: tuple[str, str]) -> tuple[Claim, ...]:
    found = []
    for name, events in policies:
        found += claims_of(read_policies([{"name": name, "events": events}], catalogue()), catalogue(), no_hook, ())
    return tuple(found)


def test_all_keys_of_a_policy(tmp_path: Path) -> None:
    (policy,) = read(tmp_path, OWN)
    (part,) = policy.parts
    assert (policy.name, policy.description, policy.output, policy.findings) == (
        "web",
        "what it says",
        ("json:/tmp/web",),
        (),
    )
    assert (part.scope, part.signatures) == (("container", "uid=33"), ("TRC-1",))
    assert part.events == ("execve", "openat.args.pathname=/etc/*")


def test_a_file_has_several_as_a_list_or_as_documents(tmp_path: Path) -> None:
    one, other = "{name: a, events: openat}", "{name: b, events: close}"
    assert [p.name for p in read(tmp_path, f"- {one}\n- {other}\n")] == ["a", "b"]
    assert [p.name for p in read(tmp_path, f"--- {one}\n--- {other}\n")] == ["a", "b"]


def test_a_folder_is_read_with_the_folders_below_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one.yml").write_text("{name: a, events: openat}")
    (tmp_path / "two.json").write_text('{"name": "b", "events": "close"}')
    (tmp_path / "README").write_text("no policy")
    assert sorted(p.name for p in read_policies([str(tmp_path)], catalogue())) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nevnts: openat\n", "p.yaml:2: no such key: evnts; did you mean events?"),
        ("name: a\n", "p.yaml:1: the policy a asks for neither events nor signatures"),
        ("events: openat\n", "p.yaml:1: the name of a policy has letters"),
        ("name: a\n'': 1\nevents: openat\n", "no such key: "),
        ("name: 'a b'\nevents: openat\n", "the name of a policy has letters"),
        ("name: a\nevents: [1]\n", "p.yaml:2: events: a text or a list of texts is wanted, not 1"),
        ("name: a\nevents: openat\ndescription: [x]\n", "p.yaml:3: description: a text is wanted"),
        ("- openat\n", "p.yaml:1: a policy is a mapping"),
        ("", "p.yaml: no policy is in it"),
        ("a: [", "not YAML"),
        ("- {name: a, events: openat}\n- {name: a, events: close}\n", "p.yaml:2: the name a is taken by "),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)


def test_a_folder_without_policies_and_a_file_that_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(PolicyError) as caught:
            read_policies([str(path)], catalogue())
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("events: opnat", "p.yaml:1: policy a: no such event or set: opnat; did you mean openat?"),
        ("events: openat.args.path=x", "policy a: no such argument of openat"),
        ("{scope: usr=1, events: openat}", "policy a: no such scope: usr"),
        ("{signatures: TRC-9}", "policy a: "),
    ],
)
def test_what_a_policy_asks_for_must_be_there(tmp_path: Path, text: str, says: str) -> None:
    body = text.strip("{}").replace(", ", "\n") if text.startswith("{") else text
    policies = read(tmp_path, f"name: a\n{body}\n")
    with pytest.raises(PolicyError) as caught:
        claims_of(policies, catalogue(), no_hook, ())
    assert says in str(caught.value)


def test_the_union_has_every_event_and_the_widest_range_that_all_allow() -> None:
    found = union(claims(("a", "openat.retval>=3,close"), ("b", "openat.retval>=5,dup"), ("c", "close.retval<0,dup")))
    assert {event.name for event in found.events} == {"openat", "close", "dup"}
    assert found.retval == (("openat", 3, 2**63 - 1),)
    assert found.conditions == ()


def test_masks_and_names() -> None:
    found = claims(("a", "openat"), ("b", "openat,close"), ("a", "dup"))
    assert event_masks(found) == {"openat": 0b011, "close": 0b010, "dup": 0b100}
    assert names_of(found, 0b111) == ("a", "b")
    assert mask_of(found, ["a"]) == 0b101
    with_rules = (Claim("a", rules=("X",)), Claim("b", rules=("X", "Y")))
    assert rule_masks(with_rules) == {"X": 0b11, "Y": 0b10}
    rule = Rule(id="Y", name="y", events={"dup": found[0].selection and ()})  # type: ignore[dict-item]
    assert event_masks(with_rules, {"Y": rule}) == {"dup": 0b10}


WORDS = st.sampled_from(
    ["name", "a", "scope", "rules", "event", "filters", "spec", "metadata", "kind", "events", "", "uid=0"]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


@given(st.one_of(ANYTHING, st.dictionaries(WORDS, ANYTHING, min_size=2, max_size=6)))
def test_whatever_a_file_holds_is_a_policy_or_refused(held: object) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(held, file)
        file.flush()
        with contextlib.suppress(PolicyError):
            claims_of(read_policies([file.name], catalogue()), catalogue(), no_hook, ())
