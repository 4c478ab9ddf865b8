"""Formats of a finding, made from its JSON line: a table for people, Falco's alert, Tracee's finding.

severity   Sigma's level              Falco's priority   Tracee's number
info       informational              Informational      0
low        low                        Notice             1
medium     medium                     Warning            2
high       high                       Error              3
critical   critical                   Critical           4
"""

from __future__ import annotations

import datetime
from typing import Any, Protocol

import msgspec

from headrace.config.printable import escaped, quoted
from headrace.workers.views.table import NARROW, shown

PRIORITIES = {"info": "Informational", "low": "Notice", "medium": "Warning", "high": "Error", "critical": "Critical"}
SEVERITIES = tuple(PRIORITIES)
COLOURS = {"info": "\x1b[2m", "low": "\x1b[36m", "medium": "\x1b[33m", "high": "\x1b[31m", "critical": "\x1b[1;31m"}
RESET = "\x1b[0m"
FIRST_EVENT_ID = 6000
HEADER = f"{'TIME':<15} {'SEVERITY':<8} {'SIGNATURE':<32} {'COMM':<15} {'PID':>7} {'CONTAINER':<12} WHAT"
NARROW_HEADER = f"{'TIME':<8} {'SEVERITY':<8} {'SIGNATURE':<10} WHAT"
SECOND_NS = 10**9
MAX_ID = 16
"""Characters of an id that people read."""


class Terminal(Protocol):
    """The terminal's properties in a plan."""

    @property
    def colour(self) -> bool:
        """Whether it shows colours."""

    @property
    def columns(self) -> int:
        """Its width; 0 if the output is not a terminal."""


def shape(form: str, line: bytes, terminal: Terminal) -> bytes:
    """The line of a finding in a format: `json`, `table`, `falco` or `tracee`."""
    if form == "json":
        return line
    finding = msgspec.json.decode(line)
    if form == "table":
        return _table(finding, terminal)
    found = _falco(finding) if form == "falco" else _tracee(finding)
    return msgspec.json.encode(found) + b"\n"


def header(columns: int) -> str:
    """The header line of the table."""
    return NARROW_HEADER if 0 < columns < NARROW else HEADER


def _moment(ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ns // SECOND_NS, datetime.UTC)


def _what(finding: dict[str, Any]) -> str:
    """What a finding is about: its title if it has more than a name, its data, else the command line and the path."""
    known = {finding["signatureName"], _label(finding)}
    found = [escaped(finding["title"])] if finding["title"] not in known else []
    data = [f"{quoted(key)}={shown(value)}" for key, value in finding["data"].items() if value is not None]
    if not data:
        path = _arguments(finding["events"][-1]).get("pathname")
        data = [shown(finding["process"]["commandLine"] or finding["process"]["path"] or "")]
        data += [shown(path)] if isinstance(path, str) and path not in data[0] else []
    if not finding["complete"]:
        data.append("(incomplete)")
    return "  ".join(found + data)


def _label(finding: dict[str, Any]) -> str:
    """What people know a signature by: its id, or its title if the id is for machines, as that of Sigma rules."""
    return str(finding["title"] if len(finding["signatureID"]) > MAX_ID else finding["signatureID"])


def _table(finding: dict[str, Any], terminal: Terminal) -> bytes:
    ns, who, severity = finding["timestamp"], finding["process"], finding["severity"]
    container = escaped(finding["container"].get("name") or finding["container"].get("id", ""))[:12]
    what = _what(finding)
    if "count" in finding:
        last = _moment(ns + finding["lastTime"] - finding["firstTime"])
        what = f"x{finding['count'] + 1}, last {last:%T}  {what}"
    name = finding["signatureName"] if finding["signatureName"] != finding["signatureID"] else finding["title"]
    if 0 < terminal.columns < NARROW:
        lead = f"{_moment(ns):%T} {severity:<8} "
        rest = f"{escaped(_label(finding)):<10} {what}  {quoted(who['name'])}[{who['pid']}]"
        rest += f" in {container}" if container else ""
    else:
        lead = f"{_moment(ns):%T}.{ns % SECOND_NS // 1000:06d} {severity:<8} "
        label = _label(finding)
        name = escaped(label if label == finding["title"] else f"{label} {name}")[:32]
        rest = f"{name:<32} {quoted(who['name']):<15} {who['pid']:>7} {container:<12} {what}"
    if terminal.columns and len(lead) + len(rest) > terminal.columns:
        rest = rest[: max(0, terminal.columns - len(lead) - 1)] + "…"
    if terminal.colour:
        lead = lead.replace(severity, f"{COLOURS[severity]}{severity}{RESET}", 1)
    return f"{lead}{rest}\n".encode()


def _arguments(event: dict[str, Any]) -> dict[str, Any]:
    return {a["name"]: a["value"] for a in event.get("args", ())}


def _falco_container(container: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"container.id": container.get("id", "")[:12] or "host"}
    if "name" in container:
        repository, _, tag = container["image"].rpartition(":")
        named = bool(repository) and "/" not in tag  # otherwise the colon precedes a port
        found |= {
            "container.name": container["name"],
            "container.image.repository": repository if named else container["image"],
            "container.image.tag": tag if named else None,
            "container.image.digest": container["imageDigest"],
        }
    if "pod" in container:
        found |= {"k8s.pod.name": container["pod"]["name"], "k8s.ns.name": container["pod"]["namespace"]}
    return found


def _falco(finding: dict[str, Any]) -> dict[str, Any]:
    ns, who, event = finding["timestamp"], finding["process"], finding["events"][-1]
    priority = PRIORITIES[finding["severity"]]
    fields: dict[str, Any] = {
        "evt.time": ns,
        "evt.type": event["eventName"],
        "proc.pid": who["pid"],
        "proc.name": who["name"],
        "proc.exepath": who["path"],
        "proc.cmdline": who["commandLine"],
        "user.uid": who["uid"],
        "user.name": who.get("user"),
        **_falco_container(finding["container"]),
    }
    for number, above in enumerate(finding["ancestors"], 1):
        path = above["path"]
        fields[f"proc.aname[{number}]"] = path.rsplit("/", 1)[-1] if path else None
    fields |= {f"evt.arg.{name}": value for name, value in _arguments(event).items()}
    fields |= finding["data"]
    moment = _moment(ns)
    shown = {key: fields[key] for key in ("user.name", "proc.name", "proc.pid", "proc.cmdline", "container.id")}
    described = "  ".join(f"{key}={value}" for key, value in {**shown, **finding["data"]}.items() if value is not None)
    message = f"{finding['title']} ({described})"
    return {
        "time": f"{moment:%Y-%m-%dT%T}.{ns % SECOND_NS:09d}Z",
        "rule": finding["title"],
        "priority": priority,
        "source": "syscall",
        "hostname": finding["hostName"],
        "output": f"{moment:%T}.{ns % SECOND_NS:09d}: {priority} {message}",
        "message": message,
        "tags": [tag for tag in (*finding["tags"], finding["mitre"]["id"], finding["signatureID"]) if tag],
        "output_fields": fields,
    }


def _tracee(finding: dict[str, Any]) -> dict[str, Any]:
    event = dict(finding["events"][-1])
    cause = {"id": event["eventId"], "name": event["eventName"], "args": event["args"]}
    cause["returnValue"] = event["returnValue"]
    args = [{"name": name, "type": "unknown", "value": value} for name, value in finding["data"].items()]
    args.append({"name": "detectedFrom", "type": "unknown", "value": cause})
    digits = "".join(c for c in finding["signatureID"] if c.isdigit())
    event |= {
        "eventId": str(FIRST_EVENT_ID + int(digits or 0) % 100_000),
        "eventName": finding["signatureName"],
        "args": args,
        "argsNum": len(args),
        "returnValue": 0,
        "metadata": {
            "Version": "1",
            "Description": finding["description"],
            "Tags": finding["tags"] or None,
            "Properties": {
                "Severity": SEVERITIES.index(finding["severity"]),
                "Category": finding["mitre"]["tactic"].lower().replace(" ", "-"),
                "Technique": finding["mitre"]["technique"],
                "Kubernetes_Technique": "",
                "id": finding["mitre"]["id"],
                "external_id": finding["mitre"]["id"],
                "signatureID": finding["signatureID"],
                "signatureName": finding["title"],
            },
        },
    }
    return event
