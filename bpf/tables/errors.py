"""Names of the errors that the kernel returns."""

from __future__ import annotations

import errno

ERRNO = dict(errno.errorcode) | {
    11: "EAGAIN",
    35: "EDEADLK",
    95: "EOPNOTSUPP",
    133: "EHWPOISON",
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    515: "ENOIOCTLCMD",
    516: "ERESTART_RESTARTBLOCK",
    517: "EPROBE_DEFER",
}
"""Results -512 to -516 make the kernel restart the call; user space never sees them."""
NUMBERS = {name: number for number, name in ERRNO.items()} | {
    name: getattr(errno, name) for name in ("EWOULDBLOCK", "EDEADLOCK", "ENOTSUP")
}
"""Numbers by name, also of names that are aliases."""
