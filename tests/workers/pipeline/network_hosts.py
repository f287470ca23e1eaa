"""Network namespaces on one switch, as a stand-in for hosts. Needs root and iproute2."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

SUBNET = "10.77.1"


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts 0, 1, ... at 10.77.1.1, 10.77.1.2, ...; each has another interface besides."""

    names: list[str]
    switch: str

    @property
    def addresses(self) -> dict[str, str]:
        """By the slot names that the tests use."""
        return {f"n-{number}": f"{SUBNET}.{number + 1}" for number in range(len(self.names))}

    @property
    def prefixes(self) -> list[tuple[str, ...]]:
        """What runs a command on each host."""
        return [(str(shutil.which("ip")), "netns", "exec", name) for name in self.names]

    def pull_cable(self, number: int) -> None:
        ip("-n", self.switch, "link", "set", f"p{number}", "down")

    def lose_packets(self, number: int) -> None:
        """The interface stays up, and nothing arrives."""
        ip("-n", self.switch, "link", "set", f"p{number}", "nomaster")


@contextmanager
def network(num_hosts: int) -> Generator[Hosts]:
    """Make the hosts, and remove them."""
    switch = f"shunt-s{os.getpid()}"
    names = [f"shunt-{number}-{os.getpid()}" for number in range(num_hosts)]
    made = [switch]
    ip("netns", "add", switch)
    try:
        ip("-n", switch, "link", "add", "b0", "type", "bridge")
        ip("-n", switch, "link", "set", "b0", "up")
        for number, name in enumerate(names):
            ip("netns", "add", name)
            made.append(name)
            _connect(name, number, switch)
        yield Hosts(names, switch)
    finally:
        for name in reversed(made):
            ip("netns", "del", name)


def _connect(name: str, number: int, switch: str) -> None:
    near, far = f"v{number}", f"p{number}"
    ip("-n", name, "link", "add", "d0", "type", "veth", "peer", "d1")
    ip("-n", name, "addr", "add", f"10.99.0.{number + 1}/24", "dev", "d0")
    ip("link", "add", near, "netns", name, "type", "veth", "peer", far, "netns", switch)
    ip("-n", name, "addr", "add", f"{SUBNET}.{number + 1}/24", "dev", near)
    ip("-n", switch, "link", "set", far, "master", "b0")
    ip("-n", switch, "link", "set", far, "up")
    for device in ("lo", "d0", "d1", near):
        ip("-n", name, "link", "set", device, "up")


def ip(*arguments: str) -> None:
    subprocess.run([str(shutil.which("ip")), *arguments], check=True)
