"""Tracee's policy files: translated to policies of headrace, or refused with the name of what is not there.

    apiVersion: tracee.aquasec.com/v1beta1        name: NAME
    kind: Policy                                  description: TEXT
    metadata: {name: NAME}                  or    scope: [...]
    spec: {scope: [...], rules: [...]}            rules: [{event: NAME, filters: [...]}, ...]

Filters on data and results become conditions. Filters on the process become a scope of their own, which the kernel
decides, so a policy has one part for each distinct scope of its rules. The tables are those of Tracee's documentation
up to v0.24.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from headrace.bpf.tables.catalogue import Catalogue, did_you_mean
from headrace.config.located import Located
from headrace.config.policies.policy import Policy, PolicyError, PolicyPart, checked_name, texts_of
from headrace.config.rules import SEVERITIES

VERSIONS = {"tracee.aquasec.com/v1beta1": "Policy", "aquasecurity.github.io/v1beta1": "TraceePolicy"}
"""`apiVersion` and the `kind` that belongs to it."""
EXPRESSION = re.compile(r"\s*([\w.]+)\s*(!=|<=|>=|=|<|>)\s*(.*?)\s*")
SCOPES = {
    **{key: key for key in ("uid", "pid", "mntns", "pidns", "uts", "comm", "container", "tree")},
    **dict.fromkeys(("executable", "exec", "binary", "bin"), "exe"),
    "p": "pid",
}
"""Keys of a policy's scope -> headrace's."""
FLAGS = {"container": "container", "not-container": "!container", "!container": "!container", "follow": "follow"}
CONTEXT = {
    **dict.fromkeys(("hostPid", "hostProcessId"), "pid"),
    **dict.fromkeys(("hostTid", "hostThreadId"), "tid"),
    **dict.fromkeys(("uid", "userId"), "uid"),
    **dict.fromkeys(("mntns", "mountNamespace"), "mntns"),
    **dict.fromkeys(("pidns", "pidNamespace"), "pidns"),
    **dict.fromkeys(("comm", "processName"), "comm"),
    **dict.fromkeys(("container", "containerId"), "container"),
    "hostName": "uts",
    "cgroupId": "cgroup",
}
"""Fields of the context in a rule's filters -> headrace's scope."""
INSIDE = {"p": "hostPid", "pid": "hostPid", "processId": "hostPid", "tid": "hostTid", "threadId": "hostTid"}
"""Numbers inside the pid namespace of the process, which scopes do not know, and those outside that they do."""
THREAT = "threat.severity"
LOG = "log"


def is_tracee(located: Located) -> bool:
    """Whether a document has the form of Tracee's policies."""
    return isinstance(located.value, dict) and bool({"spec", "rules", "apiVersion"} & set(located.value))


def translated(located: Located, file: str, catalogue: Catalogue) -> Policy:
    """The policy of a document. PolicyError if something in it is wrong or not supported."""
    return _Document(file, catalogue).policy(located)


class _Document:
    """One document. Methods raise PolicyError."""

    def __init__(self, file: str, catalogue: Catalogue) -> None:
        self._file, self._catalogue = file, catalogue

    def _at(self, located: Located) -> str:
        return f"{self._file}:{located.line}"

    def _text(self, located: Located) -> str:
        found = texts_of(located.plain(), self._at(located))
        if len(found) != 1:
            raise PolicyError(f"{self._at(located)}: one text is wanted, not {located.plain()!r}")
        return found[0].strip()

    def _mapping(self, located: Located | None, here: Located, name: str, keys: tuple[str, ...]) -> dict[str, Located]:
        if located is None or not isinstance(located.value, dict):
            raise PolicyError(f"{self._at(located or here)}: {name}: a mapping is wanted")
        found: dict[str, Located] = located.value
        for key in found:
            if keys and key not in keys:
                line = (located.keys or {}).get(key, located.line)
                raise PolicyError(f"{self._file}:{line}: {key} is not supported in {name}{did_you_mean(key, keys)}")
        return found

    def policy(self, located: Located) -> Policy:
        """The policy in either form."""
        top = self._mapping(located, located, "a policy", ())
        if "apiVersion" in top or "spec" in top:
            self._check_version(top, located)
            self._mapping(located, located, "a policy", ("apiVersion", "kind", "metadata", "spec"))
            about = self._mapping(top.get("metadata"), located, "metadata", ())
            notes = self._mapping(about["annotations"], located, "annotations", ()) if "annotations" in about else {}
            told = notes.get("description")
            body = self._mapping(top.get("spec"), located, "spec", ("scope", "rules", "defaultActions"))
        else:
            keys = ("type", "name", "description", "scope", "rules", "defaultActions", "defaultAction")
            about = body = self._mapping(located, located, "a policy", keys)
            told = about.get("description")
        name = checked_name(about["name"].value if "name" in about else None, self._at(located))
        self._check_actions(body, ("defaultActions", "defaultAction"))
        scope = tuple(self._scope(body.get("scope"), located))
        parts = self._parts(scope, body.get("rules"), located)
        return Policy(name, parts, str(told.value) if told else "", place=self._at(located))

    def _check_version(self, top: dict[str, Located], located: Located) -> None:
        version, kind = (top[key].value if key in top else None for key in ("apiVersion", "kind"))
        if VERSIONS.get(str(version)) != kind:
            known = ", ".join(f"{kind} of {version}" for version, kind in VERSIONS.items())
            raise PolicyError(f"{self._at(located)}: {kind} of {version} is not a policy that headrace knows ({known})")

    def _check_actions(self, found: dict[str, Located], keys: tuple[str, ...]) -> None:
        for key in keys:
            for action in texts_of(found[key].plain(), f"{self._at(found[key])}: {key}") if key in found else ():
                if action != LOG:
                    why = "what matches is written to the outputs of the run; there are no other actions"
                    raise PolicyError(f"{self._at(found[key])}: the action {action}: {why}")

    def _scope(self, located: Located | None, here: Located) -> Iterator[str]:
        if located is None:
            raise PolicyError(f"{self._at(here)}: the scope is missing (the whole host is `global`)")
        for part in located.parts():
            text = self._text(part)
            if text == "global":
                continue
            if text in FLAGS:
                yield FLAGS[text]
                continue
            match = EXPRESSION.fullmatch(text)
            key = SCOPES.get(match[1].lower()) if match else None
            if match is None or key is None:
                raise PolicyError(f"{self._at(part)}: the scope {text} is not known{did_you_mean(text, SCOPES)}")
            if key == "exe" and match[3].startswith(("host:", "mntns:")):
                raise PolicyError(f"{self._at(part)}: the scope {text}: an executable is named by its path on the host")
            yield f"{key}{match[2]}{match[3]}"

    def _parts(self, scope: tuple[str, ...], rules: Located | None, here: Located) -> tuple[PolicyPart, ...]:
        if rules is None or not rules.value:
            raise PolicyError(f"{self._at(here)}: the policy has no rules")
        events: dict[tuple[str, ...], list[str]] = {}
        signatures: dict[tuple[str, ...], list[str]] = {}
        places: dict[tuple[str, ...], str] = {}
        seen: set[str] = set()
        for rule in rules.parts():
            found = self._mapping(rule, rule, "a rule", ("event", "filters", "action", "actions"))
            self._check_actions(found, ("action", "actions"))
            if "event" not in found:
                raise PolicyError(f"{self._at(rule)}: the rule names no event")
            name = self._text(found["event"])
            if name in seen:
                raise PolicyError(f"{self._at(rule)}: the event {name} stands twice in the policy")
            seen.add(name)
            own, conditions = self._filters(name, found["filters"].parts() if "filters" in found else [])
            key = (*scope, *own)
            places.setdefault(key, self._at(rule))
            if self._is_event(name):
                events.setdefault(key, []).extend(conditions or [name.replace("tag=", "set=")])
            elif conditions:
                raise PolicyError(f"{self._at(rule)}: {name} is a signature, whose findings have no data to filter by")
            else:
                signatures.setdefault(key, []).append(self._signature(name, rule))
        return tuple(
            PolicyPart(key, tuple(events.get(key, ())), tuple(signatures.get(key, ())), place)
            for key, place in places.items()
        )

    def _is_event(self, name: str) -> bool:
        known = name in self._catalogue.by_name or name in self._catalogue.sets()
        return known or name.startswith("tag=") or any(mark in name for mark in "*?[")

    def _signature(self, name: str, rule: Located) -> str:
        """The pattern of --rules for a signature that a rule names, or for those of a severity."""
        key, _, value = name.partition("=")
        if key == THREAT and value.lower() in SEVERITIES:
            return f"level={value.lower()}"
        if name.startswith("net_"):
            raise PolicyError(f"{self._at(rule)}: {name}: headrace has no events of network packets")
        if not re.fullmatch(r"[\w-]+", name):
            raise PolicyError(f"{self._at(rule)}: {name} is neither an event nor the name of a signature")
        return name

    def _filters(self, event: str, filters: list[Located]) -> tuple[tuple[str, ...], list[str]]:
        """The scope that a rule's filters add, and its conditions as expressions of --events."""
        scope: list[str] = []
        conditions: dict[tuple[str, str], list[str]] = {}
        for part in filters:
            text = self._text(part)
            plain = text.removeprefix("scope.").removeprefix("context.")
            if plain in FLAGS and plain != "follow":
                scope.append(FLAGS[plain])
                continue
            match = EXPRESSION.fullmatch(text)
            if match is None:
                raise PolicyError(f"{self._at(part)}: the filter {text}: FIELD=VALUE is wanted")
            field, op, value = match.groups()
            if "," in value and field.startswith(("data.", "args.")):
                raise PolicyError(f"{self._at(part)}: the filter {text}: a value with a comma is not supported")
            if field.startswith(("data.", "args.")) or field == "retval":
                value = value.replace("[", "[[]").replace("?", "[?]")
                conditions.setdefault((field, op), []).append(value)
            else:
                scope.append(self._context(field, op, value, part))
        found = []
        for (field, op), values in conditions.items():
            # alternatives are joined; everything else must hold together
            joined = [",".join(values)] if op == "=" else values
            found += [f"{event}.{field}{op}{value}" for value in joined]
        return tuple(scope), found

    def _context(self, field: str, op: str, value: str, part: Located) -> str:
        name = field.removeprefix("scope.").removeprefix("context.")
        if name in INSIDE:
            why = f"the number is the one inside the pid namespace, which scopes do not know; {INSIDE[name]} is known"
            raise PolicyError(f"{self._at(part)}: the filter {field}: {why}")
        if name not in CONTEXT:
            raise PolicyError(f"{self._at(part)}: the filter {field} is not known{did_you_mean(name, CONTEXT)}")
        return f"{CONTEXT[name]}{op}{value}"
