"""`python guard.py COMMAND…`: runs a flow's command, and ends it when its own standard input ends.

The chain holds the other end of it. So a chain needn't live to end its flows: the system lets go of what it held.
"""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress

GRACE_S = 8.0  # Metaflow gives interrupted tasks 5 s before it kills them
POLL_S = 0.05


def main(command: list[str]) -> int:
    """Returns the command's exit status. To be leader of a process group."""
    signal.signal(signal.SIGINT, lambda *_: None)  # for the flow; a handler isn't inherited, as SIG_IGN would be
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while process.poll() is None:
        if select.select([sys.stdin], [], [], POLL_S)[0]:  # at its end, since nobody writes to it
            end(process)
    return process.returncode


def end(process: subprocess.Popen[bytes]) -> None:
    """End the group as Ctrl-C would, so that Metaflow ends its tasks; kill what is left after that, itself too."""
    os.killpg(0, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
