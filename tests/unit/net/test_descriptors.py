"""How a worker finds out that it is short of descriptors."""
from __future__ import annotations

from prefork_lb.net.descriptors import OWN, Descriptors, descriptor_limit, most_clients


def test_every_client_has_two_descriptors() -> None:
    for descriptors in (256, 1024, 65536):
        most = most_clients(descriptors)
        assert OWN + 2 * most <= descriptors < OWN + 2 * most + 2
    assert most_clients(64) > 0, "a worker with next to none serves somebody all the same"


def test_idle_connections_go_before_a_client_is_refused() -> None:
    idle, now = [5], [10.0]

    def free() -> int:
        count, idle[0] = idle[0], 0
        return count

    descriptors = Descriptors(free, lambda: now[0])
    assert not descriptors.are_short(descriptor_limit() // 2) and idle == [5]
    assert not descriptors.are_short(descriptor_limit() - 1), "five were freed"
    assert not descriptors.are_short(descriptor_limit() - 1), "they are closed in a moment"
    now[0] += 1
    assert descriptors.are_short(descriptor_limit() - 1), "there is none left to free"
