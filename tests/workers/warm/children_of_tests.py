"""What the processes run that the tests have a warm process fork."""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path


def tell_surroundings(pipe: Connection, name: str) -> None:
    """Send what this process is and where."""
    pipe.send((os.getpid(), os.getppid(), os.environ.get(name), os.getcwd()))


def leave_with(code: int) -> None:
    raise SystemExit(code)


def wait_for(path: str) -> None:
    """Until the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
