"""Interfaces, ports and numbers of the pipelines on one machine."""

import logging
import socket
from pathlib import Path

import pytest

from workers.pipeline import network
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.network import (
    PORTS,
    claim_number,
    free_rendezvous_port,
    interface_of,
    network_environment,
)


def test_the_interface_of_an_address_is_found_and_a_foreign_one_refused() -> None:
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(PipelineRefused, match=r"no interface of this node has .* 192\.0\.2\.1"):
        interface_of("192.0.2.1")


def test_two_pipelines_of_a_machine_have_two_numbers() -> None:
    first, claim = claim_number()
    second, other = claim_number()
    assert first != second
    claim.close()
    again, third = claim_number()
    assert again == first
    for socket_ in (other, third):
        socket_.close()


def test_a_rendezvous_port_is_free_and_of_the_documented_range() -> None:
    port = free_rendezvous_port("127.0.0.1", 7)
    with socket.create_server(("127.0.0.1", port)):
        other = free_rendezvous_port("127.0.0.1", 7)
    assert port != other
    assert {port, other} <= set(PORTS)


@pytest.mark.parametrize(("told", "warned"), [("61000 64999", False), ("32768 60999", True)])
def test_other_ports_than_a_security_group_admits_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    told: str,
    warned: bool,
) -> None:
    setting = tmp_path / "ip_local_port_range"
    setting.write_text(told.replace(" ", "\t"))
    monkeypatch.setattr(network, "_EPHEMERAL_NOW", setting)
    monkeypatch.setattr(network, "interface_of", lambda _: "eth0")
    with caplog.at_level(logging.WARNING):
        assert network_environment("10.0.0.1")["GLOO_SOCKET_IFNAME"] == "eth0"
    assert ("ip_local_port_range" in caplog.text) is warned
