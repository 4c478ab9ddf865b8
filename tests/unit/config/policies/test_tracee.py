"""Tracee's policy files, of the kinds that its documentation shows: loaded, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.bpf.tables.catalogue import catalogue
from headrace.config.filters import no_hook
from headrace.config.policies.claims import claims_of
from headrace.config.policies.files import read_policies
from headrace.config.policies.policy import Policy, PolicyError
from headrace.workers.detect.rules.rulesets import build

HEAD = """\
apiVersion: tracee.aquasec.com/v1beta1
kind: Policy
metadata:
  name: sample
  annotations:
    description: a sample
spec:
"""


def read(folder: Path, text: str) -> Policy:
    (folder / "p.yaml").write_text(text)
    (found,) = read_policies([str(folder / "p.yaml")], catalogue())
    return found


def spec(scope: str, *rules: str) -> str:
    lines = [f"  scope: [{scope}]", "  rules:", *(f"    - {rule}" for rule in rules)]
    return HEAD + "\n".join(lines) + "\n"


def refused(folder: Path, text: str) -> str:
    with pytest.raises(PolicyError) as caught:
        read(folder, text)
    return str(caught.value)


def test_a_policy_of_the_current_form(tmp_path: Path) -> None:
    found = read(tmp_path, spec("global", "{event: openat, filters: ['data.pathname=/tmp/*']}", "event: execve"))
    (part,) = found.parts
    assert (found.name, found.description) == ("sample", "a sample")
    assert (part.scope, part.events) == ((), ("openat.data.pathname=/tmp/*", "execve"))


@pytest.mark.parametrize(
    "head",
    [
        "apiVersion: aquasecurity.github.io/v1beta1\nkind: TraceePolicy\nmetadata: {name: sample}\nspec:\n  ",
        "type: policy\nname: sample\ndescription: plain\n",
        "name: sample\ndefaultAction: log\n",
        "name: sample\ndefaultActions: [log]\n",
    ],
)
def test_the_other_forms(tmp_path: Path, head: str) -> None:
    indent = "  " if head.endswith("  ") else ""
    found = read(tmp_path, f"{head.rstrip(' ')}{indent}scope: [global]\n{indent}rules: [{{event: openat}}]\n")
    assert (found.name, found.parts[0].events) == ("sample", ("openat",))


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ("uid=0", "uid=0"),
        ("uid>=1000", "uid>=1000"),
        ("pid=new", "pid=new"),
        ("mntNS=4026531840", "mntns=4026531840"),
        ("pidns!=4026531836", "pidns!=4026531836"),
        ("uts=ab356bc4dd554", "uts=ab356bc4dd554"),
        ("comm=bash,sh", "comm=bash,sh"),
        ("container", "container"),
        ("container=new", "container=new"),
        ("not-container", "!container"),
        ("'!container'", "!container"),
        ("executable=/usr/bin/dig", "exe=/usr/bin/dig"),
        ("bin=/usr/bin/dig", "exe=/usr/bin/dig"),
        ("tree=1", "tree=1"),
        ("follow", "follow"),
    ],
)
def test_scopes(tmp_path: Path, given: str, becomes: str) -> None:
    quoted = given if given.startswith("'") else f"'{given}'"
    assert read(tmp_path, spec(quoted, "event: openat")).parts[0].scope == (becomes,)


def test_rules_with_a_scope_of_their_own_are_parts(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        spec(
            "uid=0",
            "{event: openat, filters: [comm=ls]}",
            "{event: close, filters: [scope.processName=ls, 'retval!=0']}",
            "event: execve",
        ),
    )
    assert [(part.scope, part.events) for part in found.parts] == [
        (("uid=0", "comm=ls"), ("openat", "close.retval!=0")),
        (("uid=0",), ("execve",)),
    ]


@pytest.mark.parametrize(
    ("filters", "becomes"),
    [
        ("[data.pathname=/a, data.pathname=/b*]", ["openat.data.pathname=/a,/b*"]),
        ("['data.pathname!=/a', 'data.pathname!=/b']", ["openat.data.pathname!=/a", "openat.data.pathname!=/b"]),
        ("args.flags=O_RDONLY", ["openat.args.flags=O_RDONLY"]),
        ("'data.pathname=/a[1]?'", ["openat.data.pathname=/a[[]1][?]"]),
        ("'retval<0'", ["openat.retval<0"]),
    ],
)
def test_filters_on_data_become_conditions(tmp_path: Path, filters: str, becomes: list[str]) -> None:
    found = read(tmp_path, spec("global", f"{{event: openat, filters: {filters}}}"))
    assert list(found.parts[0].events) == becomes
    claims_of([found], catalogue(), no_hook, ())


def test_the_names_of_signatures(tmp_path: Path) -> None:
    rules = build(catalogue(), also_off=True).rules
    found = read(tmp_path, spec("global", "event: anti_debugging", "event: TRC-101", "event: threat.severity=high"))
    assert found.parts[0].signatures == ("anti_debugging", "TRC-101", "level=high")
    (claim,) = claims_of([found], catalogue(), no_hook, rules)
    assert {"TRC-102", "TRC-101"} <= set(claim.rules)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (spec("global", "event: openat").replace("v1beta1", "v2"), "Policy of tracee.aquasec.com/v2 is not a policy"),
        (spec("globl", "event: openat"), "p.yaml:8: the scope globl is not known"),
        (spec("podName=a", "event: openat"), "p.yaml:8: the scope podName=a is not known"),
        (spec("'exec=mntns:1:/bin/ls'", "event: openat"), "an executable is named by its path on the host"),
        (
            spec("global", "{event: openat, filters: [pid=1]}"),
            "p.yaml:10: the filter pid: the number is the one",
        ),
        (spec("global", "{event: openat, filters: [containerName=x]}"), "the filter containerName is not known"),
        (spec("global", "{event: openat, filters: ['data.pathname=/a,/b']}"), "a value with a comma is not supported"),
        (spec("global", "{event: openat, filters: [pathname]}"), "FIELD=VALUE is wanted"),
        (spec("global", "{event: openat, actions: [webhook]}"), "p.yaml:10: the action webhook"),
        (spec("global", "event: [openat, close]"), "p.yaml:10: one text is wanted, not ['openat', 'close']"),
        (spec("[a, b]", "event: openat"), "p.yaml:8: one text is wanted"),
        (spec("global", "{event: openat, filters: [[a, b]]}"), "p.yaml:10: one text is wanted"),
        (spec("global", "event: openat", "event: openat"), "p.yaml:11: the event openat stands twice"),
        (spec("global", "{event: openat, when: now}"), "p.yaml:10: when is not supported in a rule"),
        (spec("global", "event: net_packet_dns_request"), "p.yaml:10: net_packet_dns_request: headrace has no events"),
        (spec("global", "event: threat.mitre.tactic=Persistence"), "is neither an event nor the name of a signature"),
        (spec("global", "{event: anti_debugging, filters: ['data.x=1']}"), "anti_debugging is a signature"),
        (HEAD + "  scope: [global]\n", "the policy has no rules"),
        (HEAD + "  rules: [{event: openat}]\n", "the scope is missing"),
        (HEAD.replace("name: sample", "title: sample") + "  scope: [global]\n", "the name of a policy"),
        ("name: a\nscope: [global]\ndefaultAction: forward\nrules: [{event: a}]\n", "p.yaml:3: the action forward"),
    ],
)
def test_what_is_not_there_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ("anti_debuging", "policy sample: no signature is anti_debuging"),
        ("do_execve*", "policy sample: "),
    ],
)
def test_events_that_are_not_provided_are_named_with_their_line(tmp_path: Path, event: str, says: str) -> None:
    found = read(tmp_path, spec("global", f"event: {event}"))
    with pytest.raises(PolicyError) as caught:
        claims_of([found], catalogue(), no_hook, build(catalogue(), also_off=True).rules)
    assert "p.yaml:10: " in str(caught.value)
    assert says in str(caught.value)
