"""Network namespaces on one switch, as a stand-in for hosts. Needs root and iproute2."""

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from workers.pipeline.network import EPHEMERAL

SUBNET = "10.77.1"
OTHER_SUBNET = "10.99.0"
"""Of each host's second interface, which leads nowhere."""
_LISTENS = "0A"
_LOOPBACK = "7F"
"""In /proc/net/tcp: a socket's state, and the end of its address."""


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

    def drop_in_queue(self, number: int) -> None:
        """Both interfaces stay up and joined; what is sent, either way, is dropped."""
        for place, device in ((self.switch, f"p{number}"), (self.names[number], f"v{number}")):
            tc("-n", place, "qdisc", "replace", "dev", device, "root", "pfifo", "limit", "0")

    def blackhole(self, number: int) -> None:
        """One way only: the host hears the others, and its answers go nowhere."""
        ip("-n", self.names[number], "rule", "add", "to", f"{SUBNET}.0/24", "blackhole")

    def lose_packets(self, number: int) -> None:
        """The interface stays up, and nothing arrives."""
        ip("-n", self.switch, "link", "set", f"p{number}", "nomaster")

    def listeners(self, number: int) -> set[tuple[str, int]]:
        """Addresses and ports that somebody on the host listens on, but on loopback."""
        found: set[tuple[str, int]] = set()
        for table in ("tcp", "tcp6"):
            command = [*self.prefixes[number], "cat", f"/proc/net/{table}"]
            lines = subprocess.check_output(command, text=True).splitlines()[1:]
            for _, local, _, state in (line.split()[:4] for line in lines):
                address, port = local.split(":")
                if state == _LISTENS and not address.endswith(_LOOPBACK):
                    found.add((_dotted(address), int(port, 16)))
        return found


def _dotted(address: str) -> str:
    """The last four bytes of an address in /proc/net, each word of which is little-endian."""
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(address[-8:])))


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
    ip("-n", name, "addr", "add", f"{OTHER_SUBNET}.{number + 1}/24", "dev", "d0")
    ip("link", "add", near, "netns", name, "type", "veth", "peer", far, "netns", switch)
    ip("-n", name, "addr", "add", f"{SUBNET}.{number + 1}/24", "dev", near)
    ip("-n", switch, "link", "set", far, "master", "b0")
    ip("-n", switch, "link", "set", far, "up")
    for device in ("lo", "d0", "d1", near):
        ip("-n", name, "link", "set", device, "up")

    ports = f"{EPHEMERAL.start} {EPHEMERAL.stop - 1}"
    inside = [str(shutil.which("ip")), "netns", "exec", name]
    subprocess.run(
        [*inside, "sysctl", "-q", "-w", f"net.ipv4.ip_local_port_range={ports}"], check=True
    )


def ip(*arguments: str) -> None:
    subprocess.run([str(shutil.which("ip")), *arguments], check=True)


def tc(*arguments: str) -> None:
    subprocess.run([str(shutil.which("tc")), *arguments], check=True)
