"""The interface that an address is on, and the ports that a pipeline listens on."""

import fcntl
import logging
import socket
import struct
from pathlib import Path

from workers.pipeline.checks import PipelineRefused
from workers.pipeline.stage_map import LOOPBACK

log = logging.getLogger(__name__)

PORTS = range(29600, 29700)
"""Links and rendezvous of all pipelines of a head: two ports each, named in docs/pipelines.md."""
EPHEMERAL = range(61000, 65000)
"""What the kernel should choose from for ports that no option names: also in that document."""
_EPHEMERAL_NOW = Path("/proc/sys/net/ipv4/ip_local_port_range")
_SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface (netdevice(7))."""


def interface_of(address: str) -> str:
    """Name of the interface that carries `address`. Raises `PipelineRefused` where none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(reply[20:24]) == address:
                return name
    raise PipelineRefused(f"no interface of this node has the address {address}")


def claim_number() -> tuple[int, socket.socket]:
    """A pipeline number that no other process of this machine has, until the socket is closed.

    Its name is in the kernel only and goes with the process, and each network namespace has its
    own, as with ports.
    """
    for number in range(len(PORTS) // 2):
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind(f"\0shunt-pipeline-{number}")
        except OSError:
            claim.close()
            continue
        return number, claim
    raise PipelineRefused(f"this machine heads {len(PORTS) // 2} pipelines already")


def free_rendezvous_port(address: str, number: int) -> int:
    """A port of `PORTS` that nobody listens on, from its upper half; links have the lower.

    The search begins at the pipeline's number, so that two that start at once do not meet.
    """
    ports = PORTS[len(PORTS) // 2 :]
    for port in (*ports[number:], *ports[:number]):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise PipelineRefused(f"no free port of {ports.start}-{ports.stop - 1} on {address}")


def network_environment(address: str) -> dict[str, str]:
    """What makes vLLM, gloo and NCCL of one node use the interface of `address`."""
    interface = interface_of(address)
    first, last = (int(port) for port in _EPHEMERAL_NOW.read_text().split())
    if address != LOOPBACK and (first < EPHEMERAL.start or last >= EPHEMERAL.stop):
        log.warning(
            "ports %d-%d are in use where a security group may admit %d-%d only: set "
            "net.ipv4.ip_local_port_range",
            *(first, last, EPHEMERAL.start, EPHEMERAL.stop - 1),
        )
    return {
        "VLLM_HOST_IP": address,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
    }
