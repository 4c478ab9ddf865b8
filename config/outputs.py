"""Output specifications: `FORMAT:DESTINATION[,OPTION=VALUE...]`, and Tracee's spelling of them.

table:-            a table on standard output
json:FILE          one JSON object per line; `json:-` is standard output
arrow:FILE         an Arrow IPC stream
none               count only
zmq:ENDPOINT       publish; `ipc:///path` or `tcp://127.0.0.1:port`; format=json|columns|arrow; any `tcp://` with
                   key=FILE,clients=FILE
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from ipaddress import ip_address

from headrace.bpf.tables.catalogue import did_you_mean
from headrace.config import templates
from headrace.config.templates import TemplateError

FORMATS = {
    "table": "a table for people, on a terminal or in a file",
    "story": "what a command does, in short: programs, files written, what failed, connections, exits",
    "json": "one JSON object a line (docs/schema.json)",
    "arrow": "an Arrow IPC stream (docs/reference/wire.md); needs the extra headrace[arrow]",
    "none": "nothing but the ledger",
    "zmq": "ZeroMQ publisher; format=json (default), columns or arrow (docs/reference/wire.md)",
}
FINDING_FORMATS = {
    "table": "a line for people, coloured by severity on a terminal",
    "json": "one JSON object a line (docs/finding.schema.json)",
    "falco": "the shape of Falco's alerts, one JSON object a line",
    "tracee": "the shape of Tracee's findings, one JSON object a line",
    "none": "nothing but the ledger",
    "zmq": "ZeroMQ publisher, topics finding/SEVERITY/ID/; the endpoint may be that of an output",
}
STORY = {
    "sched_process_exec": ("ran", "argv"),
    "sched_process_exit": ("ended", "exit_code"),
    "security_file_open": ("wrote", "pathname"),
    "security_socket_connect": ("connected", "remote_addr"),
    **dict.fromkeys(("open", "openat", "openat2", "creat"), ("opened", "pathname")),
}
"""Events of a story: the verb, and the argument to show."""
STORY_EVENTS = ",".join(
    (
        "sched_process_exec",
        *("sched_process_exit.process_group_exit=1", "sched_process_exit.exit_code!=0"),
        *("security_file_open.flags=O_WRONLY,O_RDWR", "security_file_open.pathname!=/dev/null,/dev/tty,/dev/pts/*"),
        "security_socket_connect.remote_addr.family=AF_INET,AF_INET6",
        *(
            f"{call}{test}"
            for call in ("open", "openat", "openat2", "creat")
            for test in (".retval<0", ".pathname!=/dev/tty,/usr/*,/lib/*,/lib64/*,/etc/ld.so*,/*.so,/*.so.*")
        ),
        # a look whether something is there, as cp looks for its target
        *("open.flags!=O_PATH", "openat.flags!=O_PATH"),
    )
)
"""What a story is made of, as an expression of --events."""
FORMAT = "lines:"
"""What a specification begins with that is itself a template (`-p`)."""
TEMPLATE = "template:"
"""What the render of a sink begins with whose lines the user chose. The template follows (config/templates.py)."""
FOR_PEOPLE = ("table", "story")
"""Formats whose lines fit the terminal."""
POLICIES = ("block", "drop")
STDOUT, STDERR = "-", "/dev/stderr"
"""Targets that are descriptors of headrace itself. They are not opened by name."""
STANDARD = {STDOUT: 1, STDERR: 2}
OPTIONS = {
    "policy": "block (wait, and lose at the ring) or drop (lose at this sink); default block, for zmq drop",
    "format": "for zmq: json, columns or arrow",
    "enriched": "for json: hold a container's events back, in order, until it has a name; milliseconds, 60000 at most",
    "truncate": "for files: yes empties the file at the start; default no, which appends to it",
    "key": "for zmq: file with the publisher's secret key (headrace keys makes it); encrypts what is published",
    "clients": "for zmq with key: file with the public keys that may subscribe, one a line; default any",
    "insecure": "for zmq: yes lets a TCP endpoint be reached from other hosts, by anyone and in the clear",
    "policies": "only what belongs to one of these policies: names with | between them",
    "queue": "for zmq: messages that may wait for a slow subscriber; default 64",
}
SWITCHES = {
    "parse-arguments": ("parse_arguments", True),
    "no-parse-arguments": ("parse_arguments", False),
    "detect-syscall": ("detect_syscall", True),
    "no-detect-syscall": ("detect_syscall", False),
    "exec-env": ("exec_environment", True),
    "relative-time": ("relative_time", True),
    "stack-addresses": ("stack_addresses", True),
    "parse-arguments-fds": ("fd_paths", True),
    "exec-hash": ("exec_hash", True),
    "sort-events": (None, True),
}
"""`option:X` -> (setting, value). None: headrace always does this."""


class OutputError(Exception):
    """An output specification that is malformed or cannot be used."""


@dataclass(frozen=True)
class Output:
    """One sink. `render`: the format that workers render for it: table, json, columns, arrow or none."""

    format: str
    target: str
    render: str
    policy: str
    queue: int = 64
    of_findings: bool = False
    enriched_ms: int = 0
    """Milliseconds for which events of containers wait for a name; 0: they do not wait."""
    truncate: bool = False
    """Empty the file at the start instead of appending."""
    key: str = ""
    """File with the publisher's secret key; "" publishes unencrypted."""
    clients: str = ""
    """File with the public keys that may subscribe; "" allows any."""
    policies: tuple[str, ...] = ()
    """Policies whose events or findings it takes; (): all."""
    count: int = 0
    """Lines after which the output has enough; 0: no limit."""

    @property
    def name(self) -> str:
        """The specification without options, for messages."""
        shown = f"{self.format}:{self.target}" if self.target else self.format
        return f"findings {shown}" if self.of_findings else shown


@dataclass(frozen=True)
class Outputs:
    """All sinks, and the settings from Tracee's `-o option:X`."""

    sinks: tuple[Output, ...]
    switches: dict[str, bool] = field(default_factory=dict)


def _one(text: str, known: Mapping[str, str] = FORMATS) -> Output:
    spec, *rest = text.split(",")
    kind, _, target = spec.partition(":")
    options = {}
    for part in rest:
        key, eq, value = part.partition("=")
        if not eq or key not in OPTIONS:
            raise OutputError(f"output {text!r}: no such option {key!r} (there are: {', '.join(OPTIONS)})")
        options[key] = value
    if kind not in known:
        hint = did_you_mean(kind, known)
        raise OutputError(f"output {text!r}: no such format {kind!r} (there are: {', '.join(known)}){hint}")
    if kind == "none" and target:
        raise OutputError(f"output {text!r}: none takes no destination")
    if kind == "zmq" and "://" not in target:
        raise OutputError(f"output {text!r}: zmq needs an endpoint, such as zmq:ipc:///run/headrace.sock")
    takes = {
        "zmq": {"policy", "format", "queue", "insecure", "key", "clients", "policies"},
        "none": set(),
        "json": {"policy", "truncate", "enriched", "policies"},
    }
    useless = [key for key in options if key not in takes.get(kind, {"policy", "truncate", "policies"})]
    if useless:
        raise OutputError(f"output {text!r}: {kind} has no option {useless[0]!r}")
    policy = options.get("policy", "drop" if kind == "zmq" else "block")
    if policy not in POLICIES:
        raise OutputError(f"output {text!r}: policy is block or drop, not {policy!r}")
    render = options.get("format", "json") if kind == "zmq" else kind
    if kind == "zmq" and render not in ("json", "columns", "arrow"):
        raise OutputError(f"output {text!r}: format is json, columns or arrow, not {render!r}")
    if render == "arrow" and find_spec("pyarrow") is None:
        raise OutputError(f"output {text!r}: needs pyarrow, which is not installed: pip install 'headrace[arrow]'")
    queue = options.get("queue", "64")
    if not re.fullmatch("[0-9]{1,6}", queue) or not 1 <= int(queue) <= 100000:
        raise OutputError(f"output {text!r}: queue is a number from 1 to 100000")
    enriched = options.get("enriched", "0")
    if not re.fullmatch("[0-9]{1,6}", enriched) or int(enriched) > 60000:
        raise OutputError(f"output {text!r}: enriched is a number of milliseconds up to 60000")
    truncate = options.get("truncate", "no")
    if truncate not in ("yes", "no"):
        raise OutputError(f"output {text!r}: truncate is yes or no, not {truncate!r}")
    if kind == "zmq":
        _check_endpoint(text, target, options)
    place = "" if kind == "none" else (target or "-")
    keys = options.get("key", ""), options.get("clients", "")
    named = tuple(name for name in options.get("policies", "").split("|") if name)
    if "policies" in options and not named:
        raise OutputError(f"output {text!r}: policies= needs the name of a policy")
    return Output(kind, place, render, policy, int(queue), False, int(enriched), truncate == "yes", *keys, named)


def _check_endpoint(text: str, endpoint: str, options: Mapping[str, str]) -> None:
    """OutputError for an endpoint that other hosts can reach, unless clients have keys or `insecure=yes` is given. Also
    checks the options `key`, `clients` and `insecure`.
    """
    insecure = options.get("insecure", "no")
    if insecure not in ("yes", "no"):
        raise OutputError(f"output {text!r}: insecure is yes or no, not {insecure!r}")
    for name in {"key", "clients"} & set(options):
        if not options[name]:
            raise OutputError(f"output {text!r}: {name}= needs a file")
    if "clients" in options and "key" not in options:
        raise OutputError(f"output {text!r}: clients= needs key=, the publisher's own secret key")
    scheme, _, rest = endpoint.partition("://")
    if "key" in options and scheme not in ("ipc", "tcp"):
        raise OutputError(f"output {text!r}: key= is for ipc:// and tcp://; nothing else is encrypted")
    if insecure == "yes" or scheme in ("ipc", "inproc") or "clients" in options:
        return
    host = rest.rpartition(":")[0].strip("[]")
    try:
        local = scheme == "tcp" and ip_address(host).is_loopback
    except ValueError:
        local = scheme == "tcp" and host in ("localhost", "lo")
    if not local:
        raise OutputError(
            f"output {text!r}: other hosts could read everything there; use ipc:// or tcp://127.0.0.1:PORT, "
            "give key=FILE and clients=FILE (headrace keys makes keys), or write insecure=yes"
        )


def check_shared(sinks: Sequence[Output]) -> None:
    """OutputError if outputs at one endpoint have different keys. They share one socket."""
    seen: dict[str, Output] = {}
    for sink in sinks:
        if sink.format != "zmq":
            continue
        first = seen.setdefault(sink.target, sink)
        if (first.key, first.clients) != (sink.key, sink.clients):
            raise OutputError(f"{first.name} and {sink.name} are one endpoint: both need the same key= and clients=")


def parse(specs: Sequence[str]) -> Outputs:
    """Parse all output specifications together. OutputError names the part that is wrong.

    Tracee's `format:F`, `out-file:PATH` and `option:X` are accepted. A format without a destination goes to the
    out-file, by default standard output.
    """
    switches: dict[str, bool] = {}
    plain: list[str] = []
    templated: list[Output] = []
    formats: list[str] = []
    target = "-"
    for spec in specs:
        key, _, value = spec.partition(":")
        if key == "option":
            if value not in SWITCHES:
                raise OutputError(f"output {spec!r}: no such option (there are: {', '.join(SWITCHES)})")
            setting, on = SWITCHES[value]
            if setting:
                switches[setting] = on
        elif key == "format":
            formats.append("table" if value == "table-verbose" else value)
        elif key in ("template", "lines") or spec.startswith("fields="):
            templated.append(_templated(spec))
        elif key == "out-file":
            target = value
        else:
            plain.append(spec)
    plain += [f"{name}:{target}" if name != "none" else name for name in formats]
    if not plain and not templated:
        plain = [f"table:{target}"]
    sinks = (*(_one(spec) for spec in plain), *templated)
    check_distinct([(s.name, s.target) for s in sinks if s.target])
    return Outputs(sinks, switches)


def _templated(spec: str) -> Output:
    """`fields=LIST[:FILE]` and `template:FILE`, whose lines go to standard output. OutputError if it is wrong."""
    target = STDOUT
    try:
        if spec.startswith("fields="):
            names, _, place = spec.removeprefix("fields=").partition(":")
            text, target = templates.of_fields(names), place or STDOUT
        elif spec.startswith(FORMAT):
            text = spec.removeprefix(FORMAT)
        else:
            with open(spec.removeprefix(TEMPLATE), encoding="utf-8") as file:
                text = file.read(templates.MAX_CHARACTERS + 2)
        return from_template(text, target)
    except (TemplateError, UnicodeDecodeError) as error:
        raise OutputError(f"output {spec!r}: {error}") from error
    except OSError as error:
        raise OutputError(f"output {spec!r}: {error.strerror}") from error


def from_template(text: str, target: str = STDOUT) -> Output:
    """A sink whose lines the template makes. Raises TemplateError."""
    templates.parse(text)
    return Output("template", target, TEMPLATE + text, POLICIES[0])


def parse_findings(specs: Sequence[str]) -> tuple[Output, ...]:
    """Parse the destinations of findings. OutputError names the part that is wrong."""
    found: list[Output] = []
    for spec in specs:
        one = _one(spec, FINDING_FORMATS)
        if one.format == "zmq" and one.render != "json":
            raise OutputError(f"findings {spec!r}: format is json")
        found.append(replace(one, of_findings=True))
    check_distinct([(s.name, s.target) for s in found if s.target])
    return tuple(found)


def limited(sinks: Sequence[Output], count: int) -> tuple[Output, ...]:
    """The sinks, where those that write lines have enough after `count` lines; 0: no limit."""
    lines = {"table", "story", "template", "json", "falco", "tracee", "none"}
    return tuple(replace(sink, count=count) if sink.format in lines else sink for sink in sinks)


def check_distinct(targets: Sequence[tuple[str, str]]) -> None:
    """OutputError if two of the (name, destination) pairs are the same file under any path. Devices and standard error
    can be shared.
    """
    seen: dict[str, str] = {}
    for what, target in targets:
        if target == STDERR:
            continue
        place = target if target in STANDARD or "://" in target else os.path.realpath(target)
        if place.startswith("/dev/"):
            place = target
        if place in seen:
            raise OutputError(f"{seen[place]} and {what} go to the same destination")
        seen[place] = what
