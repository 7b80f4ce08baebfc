"""Networks of clients and proxies."""
from __future__ import annotations

import pytest

from prefork_lb.net.networks import lies_in


@pytest.mark.parametrize(("networks", "address", "lies"), [
    (["10.0.0.0/8"], "10.255.1.2", True),
    (["10.0.0.0/8"], "11.0.0.1", False),
    (["10.1.2.3"], "10.1.2.3", True),
    (["10.1.2.3"], "10.1.2.4", False),
    (["10.1.2.3/8"], "10.9.9.9", True),  # bits beyond the mask are no error
    (["10.0.0.0/8", "fd00::/8"], "fd12::1", True),
    (["10.0.0.0/8", "fd00::/8"], "fe80::1", False),
    (["fe80::/10"], "fe80::1%eth0", True),  # with its zone
    (["::/0"], "10.0.0.1", False),
    (["0.0.0.0/0"], "203.0.113.9", True),
    (["0.0.0.0/0"], "2001:db8::1", False),
    (["0.0.0.0/0", "::/0"], "", False),  # a unix socket's peer has none
    (["0.0.0.0/0", "::/0"], "unknown", False),
    (["0.0.0.0/0", "::/0"], "10.0.0.1:80", False),
    (["0.0.0.0/0", "::/0"], "10.0.0.1, 10.0.0.2", False),
    (["0.0.0.0/0", "::/0"], "010.0.0.1", False),  # octal or decimal: readers differ
    (["10.0.0.0/8"], "::ffff:10.1.2.3", True),  # of a socket for both families
    (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
    (["::ffff:0:0/96"], "::ffff:10.1.2.3", True),
    ([], "127.0.0.1", False),
    ([], "", False),
])
def test_whether_an_address_lies_in_a_network(networks: list[str], address: str, lies: bool) -> None:
    found = lies_in(networks)
    assert found(address) is lies
    assert found(address) is lies, "and the remembered answer is the same"


def test_what_is_remembered_is_bounded() -> None:
    """A client chooses what stands in X-Forwarded-For."""
    found = lies_in(["10.0.0.0/8"])
    for number in range(5000):
        assert not found(f"192.0.{number // 256}.{number % 256}")
    assert found.cache_info().currsize <= 4096  # type: ignore[attr-defined]


def test_a_malformed_network_is_refused() -> None:
    with pytest.raises(ValueError, match="10.0.0.0/33"):
        lies_in(["10.0.0.0/33"])
