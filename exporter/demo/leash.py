"""Runs one command that must not outlive the process that started it.

It is run as a script, with the standard library alone.

    python leash.py FOLDER COMMAND...

Standard input is a pipe whose other end the demo holds. When that end closes (the demo stops, crashes or is killed),
the command is ended and FOLDER removed; an empty FOLDER keeps all files. Exits with the command's exit code.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

GRACE = 2.0
"""Seconds between asking the command to end and ending it."""
_TIDY = 2.0
_CHUNK = 4096


def main() -> int:
    """Run the command until it ends or the pipe does."""
    folder, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the demo's own command
    released = threading.Event()

    def end(*_: object) -> None:
        released.set()

    def watch() -> None:
        while os.read(0, _CHUNK):
            pass
        released.set()

    def obey() -> None:
        released.wait()
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, end)
    threading.Thread(target=watch, daemon=True).start()
    threading.Thread(target=obey, daemon=True).start()
    code = child.wait()
    if released.is_set() and folder:
        _remove(folder)
    return code if code >= 0 else 128 - code


def _remove(folder: str) -> None:
    """Remove a folder into which another command on a leash may be writing its last."""
    end = time.monotonic() + _TIDY
    while os.path.lexists(folder) and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
