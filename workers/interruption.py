"""What tells a worker to go: a signal, the provider, or the death of its parent process."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable

from shunt.aws.imds import POLL_S, Imds
from shunt.fleet.notice import NoticeKind

log = logging.getLogger(__name__)


def on_signals(told: Callable[[str], None]) -> None:
    """Call `told` from the running event loop at SIGTERM and at SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, signal.Signals(number).name)


def on_parent_gone(pipe: int, told: Callable[[str], None]) -> None:
    """Call `told` from the running event loop when the other end of the pipe (a descriptor) closes.

    The parent holds that end and never writes: however it dies, SIGKILL included, the kernel
    closes it. Unlike a parent-death signal this leaves time to drain, and does not fire when merely
    the parent's thread ends.
    """
    watch_pipe(pipe, in_loop(told))


def on_provider_notice(
    imds: Imds, told: Callable[[str], None], *, stopped: threading.Event
) -> threading.Thread:
    """As `watch_notices`, calling `told` from the running event loop."""
    return watch_notices(imds, in_loop(told), stopped=stopped)


def in_loop(told: Callable[[str], None]) -> Callable[[str], None]:
    """What may be called from any thread, and calls `told` from the running event loop."""
    loop = asyncio.get_running_loop()

    def tell(reason: str) -> None:
        loop.call_soon_threadsafe(told, reason)

    return tell


def watch_pipe(pipe: int, told: Callable[[str], None]) -> None:
    """Call `told`, from a thread, when the other end of the pipe closes."""

    def wait() -> None:
        # Not through a buffered file: its lock, held by this thread, aborts the interpreter's exit.
        while os.read(pipe, 1):
            pass
        told("the parent process is gone")

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def watch_notices(
    imds: Imds, told: Callable[[str], None], *, stopped: threading.Event
) -> threading.Thread:
    """Call `told`, from a thread, once the provider gives this node notice.

    A recommendation to rebalance is not a notice. A metadata service that fails now and then is
    asked again: silence means nothing. Returns the thread, which ends with `stopped` or a notice.
    """

    def watch() -> None:
        while not stopped.wait(POLL_S):
            try:
                notices = imds.notices()
            except (OSError, ValueError) as error:
                log.debug("instance metadata failed error=%s", error)
                continue
            for notice in notices:
                if notice.kind is NoticeKind.INTERRUPTION:
                    told(f"the provider takes the node at {notice.at}")
                    return

    thread = threading.Thread(target=watch, name="notice-watch", daemon=True)
    thread.start()
    return thread


def leave_at_the_latest(after_s: float, exit_code: int) -> threading.Timer:
    """A last resort for a drain that hangs: end the process hard. Returns the timer, started."""
    timer = threading.Timer(after_s, os._exit, [exit_code])
    timer.daemon = True
    timer.start()
    return timer
