"""Seeds of text formats: small, made up, and like what people write."""

from __future__ import annotations

LINES = (
    b'{"timestamp":1700000000000000000,"processName":"sh","processId":7,"threadId":7,"parentProcessId":1,'
    b'"hostProcessId":77,"hostThreadId":77,"hostParentProcessId":1,"userId":0,"mountNamespace":1,"pidNamespace":1,'
    b'"hostName":"h","eventName":"openat","returnValue":3,"args":[{"name":"dirfd","type":"int","value":-100},'
    b'{"name":"pathname","type":"const char*","value":"/etc/shadow"},'
    b'{"name":"flags","type":"int","value":"O_RDONLY"}]}',
    b'{"eventName":"sched_process_exec","executable":{"path":"/bin/sh"},"containerId":"","args":[{"name":"pathname",'
    b'"value":"/bin/sh"},{"name":"argv","value":["sh","-c","id"]},{"name":"env","value":["LD_PRELOAD=/tmp/x.so"]}]}',
    b'{"eventName":"security_socket_connect","hostProcessId":5,"args":[{"name":"sockfd","value":3},'
    b'{"name":"remote_addr","value":{"sa_family":"AF_INET","sin_port":"80","sin_addr":"192.0.2.1"}}]}',
    b'{"eventName":"dup2","hostProcessId":5,"returnValue":0,"args":[{"name":"oldfd","value":3},'
    b'{"name":"newfd","value":0}]}',
    b'{"eventName":"magic_write","args":[{"name":"pathname","value":"/tmp/x"},{"name":"bytes","value":"f0VMRgEC"}]}',
    b'{"eventName":"security_socket_connect","args":[{"name":"remote_addr","value":"{\'sin_port\': \'6443\'}"}]}',
    b'{"eventName":"ptrace","args":[{"name":"request","value":"PTRACE_POKETEXT"}],"userId":"0x0"}',
    b'{"eventName":"nobody_knows","args":null}',
    b'{"eventName":"openat","timestamp":"1e3","returnValue":'
    + b"9" * 5000
    + b',"args":[{"name":"flags","value":"'
    + b"9" * 5000
    + b'"}]}',
    b'{"eventName":"sched_process_fork","hostProcessId":5,"args":[{"name":"child_pid","value":6}]}',
)

EVERY_OPERATOR = r"""
lists: {shells: [sh, bash, {list: more}], more: [zsh]}
---
- id: F-1
  name: opened
  events:
    openat:
      pathname|startswith: [/etc, /tmp]
      flags|has: [O_RDONLY]
      retval|gte: 0
    security_file_open:
      any:
        - pathname|endswith|nocase: [SHADOW, passwd]
        - pathname|glob: /home/*/.ssh/*
  threshold: {count: 2, within: 60, by: [process.name, pathname]}
  data: {file: pathname}
- id: F-2
  name: executed
  condition: {not: {process.name|contains: ssh}}
  events:
    sched_process_exec:
      argv|contains|all: [i, d]
      pathname|re: "^/(usr/)?bin/.*"
      argv[0]: {list: shells}
- id: F-3
  name: connected
  severity: high
  scope: any
  mitre: {tactic: Execution, technique: none, id: T1}
  tags: [net]
  events:
    security_socket_connect:
      all:
        - remote_addr.ip|cidr: [192.0.2.0/24, "::/0"]
        - remote_addr.port|lt: 1024
        - process.uid|exists: true
    magic_write:
      bytes|startswith|hex: 7f454c46
  data: [process.name]
  examples:
    match: [{event: magic_write, args: {bytes: f0VMRg==}}]
    near_miss: [{event: magic_write, args: {bytes: AAAA}}]
"""

SIGNATURES = (
    EVERY_OPERATOR,
    "{id: X, name: x, events: [openat]}",
    "- {id: A-1, name: a, events: {execve: {argv[1]|re: 'a{2,9}(b|c)*'}}, enabled: false}\n",
    "lists:\n  a: [1, 0x10, true]\n---\nid: B\nname: b\nevents:\n  close: {fd: {list: a}}\n",
    "id: C\nname: c\nevents:\n  ptrace:\n    - {request|has: PTRACE_ATTACH}\n    - {not: {pid|gt: -1}}\n"
    "threshold: {count: 10, within: 0.5, by: []}\nexamples:\n  match:\n    - [{event: ptrace, args: {request: 16}}]\n",
    "&a [*a]",
    "{id: E, name: e, events: {openat: {flags: 0x" + "9" * 5000 + "}}}",
    "{id: F, name: f, events: {openat: {pathname|glob: '[z-a]', retval|gt: 99999999999999999999}}}",
    "{id: G, name: !!timestamp soon, title: !!seq x, events: {sched_process_exec: {'argv[9]': 2001-01-01}}}",
    "id: D\nname: d\nevents: {mmap: {prot|hex: 7, retval: !!int '3'}}\nreferences: [https://example.org]\n",
)

SIGMA = (
    "title: Shell\nid: 0ba19b11-6c0f-4f44-9c2b-3a2b7d0c9f11\nstatus: test\nlogsource:\n  category: process_creation\n"
    "  product: linux\ndetection:\n  selection:\n    Image|endswith:\n      - /sh\n      - /bash\n"
    "    CommandLine|contains|all: [curl, '|']\n  filter:\n    ParentImage|startswith: /usr/\n"
    "  condition: selection and not filter\nlevel: high\ntags: [attack.execution, attack.t1059.004]\n",
    "title: Audit\nlogsource: {product: linux, service: auditd}\ndetection:\n  sel:\n    type: SYSCALL\n"
    "    SYSCALL|contains: [openat, '59']\n    a1|re: '^[0-9a-f]+$'\n  words: [secret, 'pass*']\n"
    "  condition: 1 of sel* or all of them\n",
    "title: Net\nlogsource: {category: network_connection, product: linux}\ndetection:\n  s:\n"
    "    DestinationIp|cidr: 10.0.0.0/8\n    DestinationPort|gt: 79\n    Initiated: 'true'\n"
    "  condition: s\n",
    "title: File\nlogsource: {category: file_event, product: linux}\ndetection:\n  a:\n"
    "    - TargetFilename|base64offset|contains: /etc\n    - TargetFilename|windash|contains: ' -x'\n"
    "    - TargetFilename|fieldref: Image\n    - TargetFilename|expand: '%x%'\n  condition: not a\n",
    "title: F\nid: 1ba19b11-6c0f-4f44-9c2b-3a2b7d0c9f11\nlogsource: {product: linux, category: process_creation}\n"
    "filter:\n  rules: [Shell]\n  selection: {User|cased: root}\n  condition: selection\n",
    "title: C\ncorrelation: {type: event_count, rules: [x], group-by: [User], timespan: 5m, condition: {gte: 3}}\n",
    "title: N\nlogsource: {product: linux}\ndetection:\n  keywords: [a, b]\n  condition: keywords\n",
    "title: ''\nlogsource: {category: process_creation}\ndetection:\n"
    "  s.one: {CommandLine|neq: null, Image|re|i|s: 'a.b'}\n"
    "  condition: s.one | count() > 3\n",
)

EXCEPTIONS = (
    "- {id: TRC-1027, unless: {process.name: dpkg}}\n- {id: '*', unless: {container.runtime: podman}}\n",
    "- id: TRC-107\n  unless:\n    any:\n      - {process.path|glob: '/usr/lib/*'}\n      - {process.uid|lt: 10}\n",
    "- {id: TRC-102, unless: {not: {process.name|re: '^(a|b)+$'}}}\n",
    "- {id: '*', unless: {host.name|cidr: 10.0.0.0/8}}\n",
    "[]",
)

SETTINGS = (
    'workers = 2\nevents = "openat,execve"\nscope = ["uid=0"]\noutput = ["json:/tmp/x", "table"]\n',
    'perf_pages = 512\nring_bytes = 1048576\nfold_s = 5\nbefore_s = 0.5\nlog_level = "info"\n',
    'findings = ["table:-"]\nrules = ["level=high"]\nexclude = ["TRC-1*"]\nexceptions = "e.yaml"\ncontainers = true\n',
    'output = ["zmq:tcp://127.0.0.1:5555,policy=drop,queue=5,format=columns", "option:parse-arguments"]\n'
    'crs = ["docker:/run/docker.sock"]\ncontainer_labels = ["io.*"]\n',
    'events = "openat.args.pathname=/tmp/*,openat.retval<0,close.args.fd>2"\n'
    'scope = ["comm=sh,bash", "pid>5", "container", "!new", "mntns=1", "exe=/bin/sh"]\n',
    'events = "openat"\noutput = ["json:/tmp/a\\u0000b"]\nscope = ["exe=/a\\u0000b"]\n',
    'fold_s = 1\nevents = "close.retval=' + "9" * 5000 + '"\n',
    'fold_s = 1\nevents = "close.args.fd=' + "9" * 5000 + '"\n',
    "fold_s = 1\nworkers = " + "9" * 5000,
    "fold_s = 1\na = " + "[" * 1000,
    "container=x\n",
    'events = "fs,-close"\noutput = ["format:json", "out-file:/tmp/y", "json:z,truncate=yes"]\n',
)
