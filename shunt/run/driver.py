"""Who drives a run: one lease, and a heartbeat by which everybody sees that the driver lives.

Two drivers that hold nodes of one run would end each other's: nodes, role and launch template are
found by the run. So a driver wins the creation of the next numbered lease, beats as long as it
drives, and finds out by the next number that it was replaced. The heartbeat is judged as that of a
shard's lease is: by the observer, on the observer's own clock. A driver that died on the observer's
own machine is known to be dead, and nobody waits for a term.
"""

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shunt import keys
from shunt.errors import RunError
from shunt.store.errors import ObjectMissing, StoreError
from shunt.store.numbered import newest_number
from shunt.store.protocol import Store

DRIVER_TERM_S = 60.0
"""A driver that has not beaten for so long is replaced by whoever wants to drive."""
DRIVER_BEAT_S = 10.0
DRIVER_SILENT_S = 900.0
"""A driver that has not beaten for so long keeps no budget: nodes that have one leave."""
STALLED_S = 600.0
"""A drive that has made no pass for so long keeps no budget either, and its heartbeat stops."""
_LOOK_S = 1.0

log = logging.getLogger(__name__)


class Place(BaseModel):
    """A process, so that others on its machine can see whether it lives."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    machine: str = ""
    """Boot of the machine and namespace of process ids; empty where the system has neither."""
    pid: int
    started: str = ""
    """When the process began, as the kernel counts: ids are used again."""


class DriverRecord(BaseModel):
    """The lease object. `owner` holds a nonce, so that no two drivers write equal bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    owner: str
    place: Place


class DriverBeat(BaseModel):
    """What the driver says of itself, again and again. The driver alone writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    owner: str
    epoch: int
    beat: int
    """Counts up, so that every heartbeat changes the object."""
    released: bool = False
    place: Place


class DrivenElsewhere(RunError):
    """Another driver has the run."""

    def __init__(self, run_id: str, place: str) -> None:
        super().__init__(
            run_id,
            f"is driven by another process ({place}), which has its nodes. Follow it with "
            "`shunt watch`, end it there, or stop it with `shunt cancel`; then go on here",
        )


class DriveGivenUp(RunError):
    """Whoever waited for the run was told to end before it had it."""


class Hold(StrEnum):
    """Whether a driver still has its run."""

    HELD = "held"
    LOST = "lost"
    """Another one has it. Whoever lost it ends nothing."""
    UNKNOWN = "unknown"
    """The store does not answer."""


@dataclass(slots=True)
class DriverLease:
    """A won lease. A context manager: inside it beats from a thread, leaving it gives it back."""

    store: Store
    run_id: str
    epoch: int
    owner: str
    place: Place
    monotonic: Callable[[], float]
    beat_s: float = DRIVER_BEAT_S
    _beat: int = 0
    _lost: bool = False
    _released: bool = False
    _passed_s: float = 0.0
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.passed()

    def __enter__(self) -> "DriverLease":
        self._thread = threading.Thread(target=self._beat_on, name="driver-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.beat_s)
        if self._lost:
            return
        try:
            with self._writing:
                # The last word: a heartbeat that comes after it costs others a term.
                self._released = True
                self._write(released=True)
        except StoreError as error:
            log.warning("driver lease not given back, it lapses: %s", error)

    def passed(self) -> None:
        """The drive has made a pass: a thread that beats says nothing of who keeps the budget."""
        self._passed_s = self.monotonic()

    @property
    def lost(self) -> bool:
        """Whether the last look found another driver. Costs nothing."""
        return self._lost

    def look(self) -> Hold:
        """Ask the store. It never raises."""
        if self._lost:
            return Hold.LOST
        try:
            self._lost = _has(self.store, keys.driver(self.run_id, self.epoch + 1))
        except StoreError as error:
            log.warning("driver lease not checked: %s", error)
            return Hold.UNKNOWN
        return Hold.LOST if self._lost else Hold.HELD

    def beat(self) -> None:
        """Say that this driver lives, unless another one took over. Raises `StoreError`."""
        if self.look() is not Hold.HELD:
            return
        with self._writing:
            if not self._released:
                self._write(released=False)

    def _beat_on(self) -> None:
        while not self._stop.wait(self.beat_s) and not self._lost:
            if self.monotonic() - self._passed_s > STALLED_S:
                log.error("no pass of the drive for %.0f s: its heartbeat stops", STALLED_S)
                continue
            try:
                self.beat()
            except StoreError as error:
                log.warning("driver heartbeat not stored: %s", error)

    def _write(self, *, released: bool) -> None:
        self._beat += 1
        beat = DriverBeat(
            owner=self.owner,
            epoch=self.epoch,
            beat=self._beat,
            released=released,
            place=self.place,
        )
        # The driver alone writes it. One that was replaced may write once more: whoever looks sees
        # by its epoch that it is not the newest driver's.
        self.store.put(keys.driver_beat(self.run_id), beat.model_dump_json().encode())


def take_drive(
    store: Store,
    run_id: str,
    *,
    monotonic: Callable[[], float],
    sleep: Callable[[float], bool | None],
    term_s: float = DRIVER_TERM_S,
    beat_s: float = DRIVER_BEAT_S,
    own: Place | None = None,
) -> DriverLease:
    """Win the run's next driver lease: at once where nobody drives, or after a term in which the
    driver before did not beat. Raises `DrivenElsewhere` as soon as it is seen to live, and
    `DriveGivenUp` where `sleep` says that it was cut short by somebody who wants us to end."""
    place = own or own_place()
    owner = f"{place.host}-{uuid.uuid4().hex}"
    watched: tuple[int, bytes] | None = None
    since_s = monotonic()
    while True:
        epoch = newest_number(store, keys.driver_prefix(run_id))
        raw = _get(store, keys.driver_beat(run_id))
        free = epoch == 0 or _free(raw, epoch, place)
        if not free and watched not in (None, (epoch, raw)):
            raise DrivenElsewhere(run_id, _told(raw))
        if free or (watched is not None and monotonic() - since_s >= term_s):
            lease = DriverLease(store, run_id, epoch + 1, owner, place, monotonic, beat_s)
            record = DriverRecord(owner=owner, place=place).model_dump_json().encode()
            if store.put_if_absent(keys.driver(run_id, epoch + 1), record):
                lease.beat()
                return lease
            watched = None
        elif watched is None:
            watched, since_s = (epoch, raw), monotonic()
            log.info("run %s has a driver: waiting whether it beats", run_id)
        if sleep(_LOOK_S):
            raise DriveGivenUp(run_id, "was waiting for its driver, and was told to end")


def own_place() -> Place:
    """This process."""
    pid = os.getpid()
    return Place(host=socket.gethostname(), machine=_machine(), pid=pid, started=_started(pid))


@dataclass(slots=True)
class DriverWatch:
    """A node's view of the driver. Says how long it is known to have been silent."""

    store: Store
    run_id: str
    monotonic: Callable[[], float]
    look_s: float = 60.0
    _seen: bytes = b""
    _since_s: float | None = None
    _next_s: float = 0.0

    def silent_s(self) -> float:
        """Seconds since the heartbeat was last seen to change; asks the store now and then.

        A store that does not answer says nothing of the driver, so the time begins again.
        """
        now_s = self.monotonic()
        if self._since_s is None:
            self._since_s = now_s
        if now_s >= self._next_s:
            self._next_s = now_s + self.look_s
            try:
                seen = _get(self.store, keys.driver_beat(self.run_id))
            except StoreError as error:
                log.warning("driver heartbeat not read: %s", error)
                self._since_s = self.monotonic()
                return 0.0
            if seen != self._seen:
                self._seen, self._since_s = seen, now_s
        return now_s - self._since_s


def _free(raw: bytes, epoch: int, own: Place) -> bool:
    """Whether the newest driver gave the run back, or is known to be dead."""
    if not raw:
        return False
    beat = DriverBeat.model_validate_json(raw)
    if beat.epoch != epoch:
        return False  # the newest one has not beaten yet
    return beat.released or is_dead(beat.place, own)


def is_dead(place: Place, own: Place) -> bool:
    """Whether the process is known to be gone: it can be known on its own machine alone."""
    if not place.machine or place.machine != own.machine:
        return False
    return _started(place.pid) != place.started


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not a Linux
        return ""


def _started(pid: int) -> str:
    """Of a process of this machine; empty where there is none (any more)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rsplit(")", 1)[-1].split()  # proc(5): the name before may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def _told(raw: bytes) -> str:
    if not raw:
        return "it has not said where"
    place = DriverBeat.model_validate_json(raw).place
    return f"process {place.pid} on {place.host}"


def _has(store: Store, key: str) -> bool:
    return bool(_get(store, key))


def _get(store: Store, key: str) -> bytes:
    try:
        return store.get(key)
    except ObjectMissing:
        return b""
