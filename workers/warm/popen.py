"""Processes of multiprocessing that the warm process forks; spawned cold where it cannot."""

import io
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import (
    forkserver,
    popen_forkserver,
    popen_spawn_posix,
    process,
    reduction,
    resource_tracker,
    spawn,
    util,
)
from multiprocessing.context import BaseContext, SpawnProcess, set_spawning_popen
from typing import Any

from workers.owner_socket import ChannelError
from workers.warm.forked import Dial, ForkedChild

log = logging.getLogger(__name__)


class WarmPopen(popen_forkserver.Popen):
    """As multiprocessing's own for its fork server, whose descriptors' numbering it uses."""

    def __init__(self, process_obj: process.BaseProcess, dial: Dial, *, forks: bool) -> None:
        self._fds: list[int] = []
        self._dial = dial
        self._request = {"forks": forks}
        super().__init__(process_obj)

    def _launch(self, process_obj: Any) -> None:
        preparation = spawn.get_preparation_data(process_obj._name)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        data, writer = os.pipe()
        try:
            descriptors = [0, 1, 2, data, resource_tracker.getfd(), *self._fds]
            self._child = ForkedChild(self._dial, self._request, descriptors)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(data)
        self.pid, self.sentinel = self._child.pid, self._child.sentinel
        # Its other end is the child's sentinel of this process.
        life = os.dup(writer)
        self.finalizer = util.Finalize(self, _close, (self._child, life))
        with suppress(BrokenPipeError), open(writer, "wb", closefd=True) as pipe:
            pipe.write(buffer.getbuffer())

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None:
            self.returncode = self._child.poll(0.0 if flag == os.WNOHANG else None)
        return self.returncode

    def _send_signal(self, sig: int) -> None:
        self._child.send_signal(sig)


def _close(child: ForkedChild, life: int) -> None:
    child.close()
    os.close(life)


class WarmContext(BaseContext):
    """A multiprocessing context whose processes are forked from the warm process behind `dial`.

    With `forks`, each of them may fork others in its turn (`workers.warm.nursery`). `cold` is told
    why, whenever one is spawned in the ordinary way instead.
    """

    # Named so because objects are handed over as to a spawned process, and not inherited.
    _name = "spawn"

    def __init__(self, dial: Dial, *, forks: bool, cold: Callable[[str], None]) -> None:
        super().__init__()

        def popen(process_obj: Any) -> Any:
            try:
                return WarmPopen(process_obj, dial, forks=forks)
            except ChannelError as error:
                log.warning("cold start process=%s: %s", process_obj.name, error)
                cold(str(error))
                return popen_spawn_posix.Popen(process_obj)

        class Process(SpawnProcess):
            _Popen = staticmethod(popen)

            def __reduce__(self) -> Any:
                # In the child it is an ordinary one: this class cannot be imported there.
                return _spawned, (self.__dict__.copy(),)

        self.Process = Process  # type: ignore[assignment]


def _spawned(state: dict[str, Any]) -> SpawnProcess:
    arrived = SpawnProcess.__new__(SpawnProcess)
    arrived.__dict__.update(state)
    return arrived


def run_process(descriptors: list[int]) -> int:
    """In the child: be the process of multiprocessing that comes over the first descriptor."""
    data, tracker, *inherited = descriptors
    setattr(resource_tracker._resource_tracker, "_fd", tracker)  # noqa: B010
    setattr(forkserver._forkserver, "_inherited_fds", inherited)  # noqa: B010
    return spawn._main(data, os.dup(data))  # type: ignore[attr-defined]
