"""Several processes that create the same keys at the same moments: exactly one may win each."""

import multiprocessing
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

from shunt.store.credentials import Credentials
from shunt.store.opening import open_store

_ROUND_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """What another process needs to open the same store."""

    uri: str
    endpoint_url: str | None = None
    region: str | None = None
    credentials: Credentials | None = None


def race_key(number: int) -> str:
    return f"race/{number:06d}"


def race_bytes(writer: int) -> bytes:
    """What a writer tries to put; no two writers' bytes are equal."""
    return f"writer {writer}".encode()


def race_processes(address: StoreAddress, *, writers: int, rounds: int) -> list[list[int]]:
    """For each round, the writers to whom `put_if_absent` said that they had won."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(writers)
    wins: SimpleQueue[tuple[int, list[int]]] = context.SimpleQueue()
    processes = [
        context.Process(target=_write, args=(address, writer, rounds, barrier, wins), daemon=True)
        for writer in range(writers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0, "a writer of the race failed; see its traceback"
    winners: list[list[int]] = [[] for _ in range(rounds)]
    for _ in processes:
        writer, won = wins.get()
        for number in won:
            winners[number].append(writer)
    return winners


def _write(
    address: StoreAddress,
    writer: int,
    rounds: int,
    barrier: Barrier,
    wins: "SimpleQueue[tuple[int, list[int]]]",
) -> None:
    store = open_store(
        address.uri,
        endpoint_url=address.endpoint_url,
        region=address.region,
        credentials=address.credentials,
    )
    won: list[int] = []
    for number in range(rounds):
        barrier.wait(_ROUND_TIMEOUT_S)
        if store.put_if_absent(race_key(number), race_bytes(writer)):
            won.append(number)
    wins.put((writer, won))
