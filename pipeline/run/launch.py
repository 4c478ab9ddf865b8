"""The traced command before it is one: waits until tracing is armed, then becomes the command.

    python -I -S launch.py READY_FD GO_FD IGNORED PATH COMMAND [ARG...]

IGNORED is the mask of signals that headrace itself found ignored, in hex: the command gets those, and the default for
all others, since Python changes some and the supervisor handles others.

Run as a script by the supervisor. Nothing of it is shown: the kernel side starts with its exec. Exit status 127 if
there is no such command, 126 if it cannot be executed.
"""

import errno
import os
import signal
import sys


def main() -> None:
    """Say so, wait for a byte, then exec. End of file instead of a byte: never mind."""
    ready, go, ignored, command = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3], 16), sys.argv[4:]
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if ignored >> (number - 1) & 1 else signal.SIG_DFL)
    os.write(ready, b"x")
    os.close(ready)
    if not os.read(go, 1):
        os._exit(0)
    os.close(go)
    try:
        os.execv(command[0], command[1:])
    except OSError as error:
        sys.stderr.write(f"headrace: {command[1]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126)


if __name__ == "__main__":
    main()
