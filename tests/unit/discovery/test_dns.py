"""Servers by DNS, from a real name server on loopback."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from prefork_lb.discovery import dns
from prefork_lb.discovery.dns import AddressSource, ServiceSource
from prefork_lb.discovery.source import ListError
from prefork_lb.shared.table import ServerEntry
from tests.support.name_server import NameServer

NAME, SERVICE = "app.internal", "_http._tcp.app.internal"


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def addresses(server: NameServer, address: str = f"{NAME}:8001", interval_s: float = 5.0) -> AddressSource:
    return AddressSource(address, interval_s, [server.address])


def services(server: NameServer) -> ServiceSource:
    return ServiceSource(SERVICE, 5.0, [server.address])


def test_each_address_of_a_name_is_a_server(server: NameServer) -> None:
    server.set(NAME, "A", ["10.0.0.2", "10.0.0.1"], 30)
    server.set(NAME, "AAAA", ["2001:db8::1"], 60)
    found = addresses(server).look()
    assert list(found.servers) == ["10.0.0.1:8001", "10.0.0.2:8001", "[2001:db8::1]:8001"]
    assert 28 <= found.again_s <= 30, "the lesser TTL"
    assert list(addresses(server, f"https://{NAME}:8443").look().servers)[0] == "https://10.0.0.1:8443"


def test_one_kind_of_address_is_enough(server: NameServer) -> None:
    server.set(NAME, "AAAA", ["::1"], 30)
    assert list(addresses(server).look().servers) == ["[::1]:8001"]


def test_a_ttl_of_nought_gives_way_to_the_interval(server: NameServer) -> None:
    server.set(NAME, "A", ["10.0.0.1"], 0)
    assert addresses(server, interval_s=7.0).look().again_s == 7.0
    assert addresses(server, interval_s=0.01).look().again_s == 1.0


def test_an_answer_that_is_cut_is_asked_for_over_tcp(server: NameServer) -> None:
    server.truncates = True
    server.set(NAME, "A", [f"10.0.{number >> 8}.{number & 255}" for number in range(1000)], 30)
    assert len(addresses(server).look().servers) == 1000


def test_a_name_without_addresses_lists_nothing(server: NameServer) -> None:
    server.set(NAME, "TXT", ["x"], 30)
    assert addresses(server).look().servers == {}


@pytest.mark.parametrize("kind", [addresses, services])
def test_what_fails_is_told(server: NameServer, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_LOOK_S", 0.3)
    monkeypatch.setattr(dns, "_TRY_S", 0.1)
    with pytest.raises(ListError, match="there is no such name"):
        kind(server).look()
    server.is_refusing = True
    with pytest.raises(ListError, match=f"{NAME}: .*SERVFAIL|no name server has answered"):
        kind(server).look()
    server.is_silent = True
    with pytest.raises(ListError, match=f"{NAME}: no name server has answered"):
        kind(server).look()


def test_half_an_answer_is_none(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of one kind would vanish while the name server does not answer for them."""
    monkeypatch.setattr(dns, "_LOOK_S", 0.3)
    server.set(NAME, "A", ["10.0.0.1"], 30)
    answer = server._answer

    def only_a(data: bytes, is_cut: bool) -> bytes:
        told = answer(data, is_cut)
        server.is_refusing = True
        return told

    monkeypatch.setattr(server, "_answer", only_a)
    with pytest.raises(ListError, match="app.internal"):
        addresses(server).look()


def test_each_target_of_a_service_is_a_server_with_its_port_and_weight(server: NameServer) -> None:
    server.set(SERVICE, "SRV", ["10 5 8001 a.internal.", "10 0 8002 a.internal.", "20 7 8003 b.internal."], 60)
    server.set("a.internal", "A", ["10.0.0.1"], 20)
    server.set("b.internal", "AAAA", ["::2"], 40)
    found = services(server).look()
    assert found.servers == {
        "10.0.0.1:8001": ServerEntry("10.0.0.1:8001", 5, 0, False), "10.0.0.1:8002": ServerEntry("10.0.0.1:8002", 1, 0, False),
        "[::2]:8003": ServerEntry("[::2]:8003", 7, 0, True)}
    assert 18 <= found.again_s <= 20
    assert server.questions.count("a.internal A") == 1


def test_addresses_that_come_with_the_answer_are_not_asked_for(server: NameServer) -> None:
    server.set(SERVICE, "SRV", ["0 1 8001 a.internal."], 60)
    server.additional = {("a.internal", "A"): (60, ("10.0.0.1", "10.0.0.2"))}
    assert list(services(server).look().servers) == ["10.0.0.1:8001", "10.0.0.2:8001"]
    assert server.questions == [f"{SERVICE} SRV"]


def test_large_weights_keep_their_proportion(server: NameServer) -> None:
    server.set(SERVICE, "SRV", ["0 60000 1 a.internal.", "0 30000 2 a.internal.", "0 1 3 a.internal."], 60)
    server.set("a.internal", "A", ["10.0.0.1"], 20)
    assert [each.weight for each in services(server).look().servers.values()] == [1000, 500, 1]


def test_a_service_that_is_decidedly_not_there_lists_nothing(server: NameServer) -> None:
    server.set(SERVICE, "SRV", ["0 0 0 ."], 60)
    assert services(server).look().servers == {}


def test_a_record_that_is_no_server_is_told(server: NameServer) -> None:
    server.set(SERVICE, "SRV", ["0 1 0 a.internal."], 60)
    server.set("a.internal", "A", ["10.0.0.1"], 60)
    with pytest.raises(ListError, match="'0' is no port"):
        services(server).look()
