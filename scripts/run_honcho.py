#!/usr/bin/env python3
"""Run honcho so that its processes end with the terminal, or with the program that reads its output.

honcho itself ends at once then, and leaves its processes behind, which hold their ports. So it runs in a session of its
own, as they do, and is sent SIGTERM: they drain, and it waits for them. Under nohup, which ignores SIGHUP, they go on.
"""

import os
import signal
import subprocess
import sys


def main() -> None:
    command = [sys.executable, "-m", "honcho", *sys.argv[1:]]
    honcho = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: honcho.terminate())
    for line in honcho.stdout:
        try:
            os.write(1, line)
        except OSError:  # nobody reads it any more; what comes now is lost
            honcho.terminate()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(honcho.wait())


if __name__ == "__main__":
    main()
