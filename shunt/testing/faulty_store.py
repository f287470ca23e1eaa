"""A store that fails on cue, for the test that fails every call in turn.

    undisturbed = FaultyStore(MemoryStore())
    run(undisturbed)
    for number in range(undisturbed.num_calls):
        for when in When:
            run(FaultyStore(MemoryStore(), fail_call(number, when)))

It also counts calls and bytes, so a test or a benchmark can say what an operation costs.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from shunt.store.errors import StoreUnavailable
from shunt.store.protocol import Store

T = TypeVar("T")


class When(StrEnum):
    """What has happened to the store when a call fails."""

    BEFORE = "before"
    """Nothing: the request never arrived."""

    AFTER = "after"
    """The call was done, and the caller gets the error all the same."""

    REPLY_LOST = "reply_lost"
    """The call was done, its reply was lost, and the adapter did it again, as adapters do: the
    caller gets the second answer and no error."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call about to be made. Numbers count from 0 over all verbs."""

    number: int
    verb: str
    key: str


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call fails. `error` is raised; give a `BaseException` of the test's to act a crash."""

    when: When
    error: BaseException = field(
        default_factory=lambda: StoreUnavailable("fault injected by FaultyStore")
    )


@dataclass(slots=True)
class Traffic:
    """What went through the store, per verb."""

    calls: Counter[str] = field(default_factory=Counter[str])
    bytes_written: Counter[str] = field(default_factory=Counter[str])
    bytes_read: Counter[str] = field(default_factory=Counter[str])


def no_fault(_call: Call) -> Fault | None:
    return None


def fail_call(number: int, when: When, *, error: BaseException | None = None) -> "ChooseFault":
    """Fail the call of this number and no other."""
    fault = Fault(when) if error is None else Fault(when, error)
    return lambda call: fault if call.number == number else None


ChooseFault = Callable[[Call], Fault | None]


class FaultyStore:
    """Wraps a store; `choose` says of each call whether and how it fails."""

    def __init__(self, store: Store, choose: ChooseFault = no_fault) -> None:
        self._store = store
        self._choose = choose
        self._lock = threading.Lock()
        self.traffic = Traffic()

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def num_calls(self) -> int:
        return self.traffic.calls.total()

    def get(self, key: str) -> bytes:
        return self._count_read("get", self._call("get", key, lambda: self._store.get(key)))

    def get_range(self, key: str, *, start: int, length: int) -> bytes:
        def read() -> bytes:
            return self._store.get_range(key, start=start, length=length)

        return self._count_read("get_range", self._call("get_range", key, read))

    def size_bytes(self, key: str) -> int:
        return self._call("size_bytes", key, lambda: self._store.size_bytes(key))

    def list(self, prefix: str) -> Iterator[str]:
        return self._call("list", prefix, lambda: self._store.list(prefix))

    def put(self, key: str, data: bytes) -> None:
        self._call("put", key, lambda: self._store.put(key, data), written=len(data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        def write() -> bool:
            return self._store.put_if_absent(key, data)

        return self._call("put_if_absent", key, write, written=len(data))

    def put_file(self, key: str, path: Path) -> None:
        def write() -> None:
            self._store.put_file(key, path)

        self._call("put_file", key, write, written=path.stat().st_size)

    def download(self, key: str, path: Path) -> None:
        self._call("download", key, lambda: self._store.download(key, path))

    def delete(self, key: str) -> None:
        self._call("delete", key, lambda: self._store.delete(key))

    def _call(self, verb: str, key: str, do: Callable[[], T], *, written: int = 0) -> T:
        with self._lock:
            call = Call(self.num_calls, verb, key)
            self.traffic.calls[verb] += 1
            self.traffic.bytes_written[verb] += written
            fault = self._choose(call)
        if fault is None:
            return do()
        if fault.when is When.BEFORE:
            raise fault.error
        answer = do()
        if fault.when is When.AFTER:
            raise fault.error
        del answer  # lost on the way
        return do()

    def _count_read(self, verb: str, data: bytes) -> bytes:
        with self._lock:
            self.traffic.bytes_read[verb] += len(data)
        return data
