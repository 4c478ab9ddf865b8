"""JSON lines as events: Tracee's flat format, and headrace's own (docs/schema.json). headrace's own lines have every
field that a rule can read, with the value that the run had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.bpf.tables.catalogue import LEXICAL, Catalogue, Event
from headrace.bpf.tables.reads import HASH, NAME, PATH, ROOT, Argument
from headrace.workers.decode.meaning import BYTES_TYPE
from headrace.workers.decode.sockaddr import decode as decode_sockaddr
from headrace.workers.decode.texts import TEXT_TYPES
from headrace.workers.detect.offline.flat import FlatEvent, texts
from headrace.workers.detect.offline.lineages import NOTHING, Told
from headrace.workers.detect.rules.fields import CONTEXT_FIELDS, DESCRIPTOR, EXEC, SOCKADDR_TYPE, TARGET
from headrace.workers.detect.rules.values import TextValue
from headrace.workers.views.json_lines import UNSET, UTS
from headrace.workers.views.named import SOURCE
from headrace.workers.views.style import exact

TRACEE_CONTEXT = {
    "process.pid": "hostProcessId",
    "process.tid": "hostThreadId",
    "process.ppid": "hostParentProcessId",
    "process.ns_pid": "processId",
    "process.ns_tid": "threadId",
    "process.ns_ppid": "parentProcessId",
    "process.uid": "userId",
    "process.mntns": "mountNamespace",
    "process.pidns": "pidNamespace",
    "process.name": "processName",
    "host.name": "hostName",
    "container.id": "containerId",
}
OWN_CONTEXT = {
    "process.user": "user",
    "process.gid": "gid",
    "process.euid": "euid",
    "process.login_uid": "loginUid",
    "process.session_id": "sessionId",
    "process.utsns": "utsNamespace",
    "process.cap_effective": "capEffective",
}
"""Keys in `context`, which only headrace's own lines have."""
USUAL = {"loginUid": UNSET, "sessionId": UNSET, "utsNamespace": UTS, "capEffective": 0}
"""Default values, which those lines omit."""
FOREIGN = (SOURCE, HASH)
"""Sources of values that are not in records. The signatures of a run cannot read them."""


def is_own(line: Mapping[str, Any]) -> bool:
    """Whether headrace wrote a line."""
    return isinstance(line.get("context"), dict)


def _exact(given: Mapping[str, Any], key: str) -> Any:
    """The text at a key, as exact bytes if headrace added them as base64. ValueError if the base64 is invalid."""
    value, encoded = given[key], given.get(f"{key}Base64")
    return value if encoded is None else exact(key, encoded)


def of_line(line: Mapping[str, Any], catalogue: Catalogue, told: Told = NOTHING) -> FlatEvent | None:
    """The event of a line; None if the catalogue does not know it. `told`: what is known about its process. ValueError
    if the line is malformed.
    """
    name = line.get("eventName")
    if not isinstance(name, str):
        raise ValueError("no eventName")
    raw = line.get("args")
    if not isinstance(raw, Sequence | None) or isinstance(raw, str):
        raise ValueError("args is no list")
    given: dict[str, Mapping[str, Any]] = {}
    for each in raw or ():
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise ValueError("an argument has no name")
        given[each["name"]] = each
    event = catalogue.by_name.get(name)
    if event is None:
        return None
    values = _context(line)
    if event.name != EXEC or not is_own(line):
        values |= _executable(line)
    values |= {key: text for key, text in told.values.items() if event.name != EXEC or not key.startswith("process.")}
    args = _arguments(event, given, values, is_own(line))
    retval = line.get("returnValue")
    return FlatEvent(event, args, retval if isinstance(retval, int) else None, values)


def _context(line: Mapping[str, Any]) -> dict[str, Any]:
    values = {field: _exact(line, key) for field, key in TRACEE_CONTEXT.items() if line.get(key) is not None}
    flags, container = line.get("contextFlags"), line.get("container")
    if isinstance(flags, dict) and isinstance(flags.get("containerStarted"), bool):
        values["container.started"] = flags["containerStarted"]
    if is_own(line):
        own = line["context"]
        usual = {"gid": line.get("userId"), "euid": line.get("userId")} | USUAL
        for field, key in OWN_CONTEXT.items():
            found = _exact(own, key) if own.get(key) is not None else usual.get(key)
            values |= {} if found is None else {field: found}
        values["container.runtime"] = container.get("runtime", "") if isinstance(container, dict) else ""
        if line.get("ownTarget") is True:
            values[TARGET] = True
    elif isinstance(line.get("userName"), str):
        values["process.user"] = line["userName"]
    return values


def _executable(line: Mapping[str, Any]) -> dict[str, Any]:
    executable = line.get("executable")
    if not isinstance(executable, dict) or not executable.get("path"):
        return {}
    path = _exact(executable, "path")
    return {"process.path": path, "process.image": path}


def _arguments(
    event: Event, given: Mapping[str, Mapping[str, Any]], values: dict[str, Any], own: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    of = {argument.name: argument for argument in event.arguments}
    for name, each in given.items():
        found[name] = _argument(of[name], each) if name in of else each.get("value")
    if not own:
        return found
    if event.is_syscall:  # other events show the pointer
        read = {blob.arg for blob in event.blobs}
        found |= {a.name: None for i, a in enumerate(event.arguments) if a.type in TEXT_TYPES and i not in read}
    if event.descriptor is not None:
        values |= _descriptor(given.get(event.arguments[event.descriptor].name, {}))
    for argument in event.arguments:
        # A line has `root_...` only if the process's own root differs from the host's; otherwise the two paths are
        # equal.
        if argument.form == ROOT and argument.name not in given:
            found[argument.name] = found.get(argument.name.removeprefix("root_"))
    for argument in event.arguments:
        root = found.get(f"root_{argument.name}")
        if argument.form in (PATH, NAME) and f"root_{argument.name}" in given and root is not None:
            found[argument.name] = _both(found.get(argument.name), root)
    return found


def _both(path: object, root: object) -> TextValue | None:
    if path is None:
        return None
    first = texts(path)
    return TextValue((*first.parts, *texts(root).parts), first.cut)


def _argument(argument: Argument, given: Mapping[str, Any]) -> Any:
    """The value of an argument, from the exact bytes and numbers if headrace added them. ValueError."""
    value, encoded, raw = given.get("value"), given.get("base64"), given.get("raw")
    if value is None and given.get("reason") == "raced":
        return TextValue((), True)
    if value is None or given.get("source") in FOREIGN:
        return None
    if isinstance(raw, int) and isinstance(value, str | bool | int):
        return raw
    if argument.type == BYTES_TYPE:
        return value
    if encoded is not None and isinstance(value, str | list | dict):
        data = exact(argument.name, encoded)
        if argument.type == SOCKADDR_TYPE:
            return decode_sockaddr(data)
        if isinstance(value, dict):
            return value
        # The elements of a vector are one text, separated by NULs.
        value = data.split(b"\0") if isinstance(value, list) else data
    cut = given.get("cut") is True or given.get("reason") == "fault"
    passed = given.get("source") == LEXICAL
    if (cut or passed) and isinstance(value, str | bytes | list):
        return TextValue(tuple(texts(value).parts), cut, passed)
    return value


def _descriptor(given: Mapping[str, Any]) -> dict[str, Any]:
    """The file of a descriptor, which follows its number in the value (`NUMBER=PATH`)."""
    value = given.get("value")
    if not isinstance(value, str) or not isinstance(given.get("raw"), int):
        return {}
    encoded = given.get("base64")
    data = value.encode("utf-8", "surrogateescape") if encoded is None else exact("descriptor", encoded)
    _, sign, path = data.partition(b"=")
    # an unnamed pipe has no name
    return {DESCRIPTOR: TextValue((b"" if path == b"pipe" else path,))} if sign else {}


assert {*TRACEE_CONTEXT, *OWN_CONTEXT} <= set(CONTEXT_FIELDS)
