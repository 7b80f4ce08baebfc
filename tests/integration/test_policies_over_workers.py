"""Each policy is one sequence over all workers: exact counts, strict turns, weights, limits and backups."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.balancer import Balancer, FrontEnd, pool_text, stopped
from tests.support.client import Burst, Connection, fetch, request_bytes
from tests.support.load import Load
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS = 4
SHARES = (5, 3, 1, 1)

USER_POLICY = '''
class LastOne:
    """Always the last candidate."""

    def __init__(self, rng, memory):
        pass

    def pick(self, candidates, request):
        return candidates[-1]
'''


class Setup(NamedTuple):
    balancer: Balancer
    origin: Origin


def weighted(addresses: list[str], weights: tuple[int, ...]) -> list[str]:
    pairs = zip(addresses, weights, strict=True)
    return [f'{{ address = "{address}", weight = {weight} }}' for address, weight in pairs]


def configuration(addresses: list[str]) -> str:
    """One pool for each thing that is tested, over the same servers, told apart by the Host field."""
    limited = [f'{{ address = "{address}", max_connections = 3 }}' for address in addresses[:2]]
    spare = [f'{{ address = "{addresses[0]}", max_connections = 2 }}']
    spare += [f'{{ address = "{address}", backup = true }}' for address in addresses[1:3]]
    pools = {
        "turns": (addresses, "round-robin"),
        "thousand": (addresses, "round-robin"),
        "smooth": (weighted(addresses[:3], (5, 1, 1)), "weighted-round-robin"),
        "crowd": (weighted(addresses[:3], (5, 1, 1)), "weighted-round-robin"),
        "ties": (addresses, "least-connections"),
        "idle": (weighted(addresses, SHARES), "least-connections"),
        "burst": (weighted(addresses, SHARES), "least-connections"),
        "busy": (weighted(addresses, SHARES), "least-connections"),
        "limited": (limited, "least-connections"),
        "spare": (spare, "least-connections"),
        "chance": (addresses, "random"),
        "two": (addresses[:2], "power-of-two"),
        "one": (addresses, "first"),
        "own": (addresses, "own_policy:LastOne"),
    }
    text = "".join(pool_text(servers, policy, name) for name, (servers, policy) in pools.items())
    return text + "".join(f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n\n' for name in pools)


@pytest.fixture(scope="module")
def setup(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Rig(tmp_path_factory.mktemp("policies")) as rig:
        origin = rig.origin(SERVERS)
        balancer = rig.new_balancer(configuration(origin.addresses), front_end, workers=front_end.workers)
        (balancer.folder / "own_policy.py").write_text(USER_POLICY)
        balancer.start()
        yield Setup(balancer, origin)


def ask(setup: Setup, host: str, count: int) -> list[int]:
    """Send `count` requests one after another, each on a new connection; the servers in order."""
    start = len(setup.origin.arrivals)
    for _ in range(count):
        assert fetch(setup.balancer.address, fields=[("Host", host)]).status == 200
    return setup.origin.order(start)


def ask_each_worker(setup: Setup, host: str, count: int) -> list[int]:
    """The same, `count` to every worker in turn: the others stand still meanwhile."""
    order: list[int] = []
    workers = setup.balancer.workers()
    for worker in workers:
        with stopped(pid for pid in workers if pid != worker):
            order += ask(setup, host, count)
    return order


def ask_from_many(setup: Setup, host: str, clients: int, each: int) -> list[int]:
    """`clients` at once, `each` requests each; every other client keeps its connection. Requests by server."""
    start = len(setup.origin.arrivals)
    problems: list[str] = []

    def client(keeps: bool) -> None:
        try:
            if keeps:
                kept = 0
                while kept < each:
                    # A front end may end a connection after any response (sync always does): go on with a new one.
                    with Connection(setup.balancer.address) as connection:
                        closed = False
                        while kept < each and not closed:
                            response = connection.request("/", fields=[("Host", host)])
                            assert response.status == 200, response
                            closed = (response.value("Connection") or "").lower() == "close"
                            kept += 1
            else:
                for _ in range(each):
                    response = fetch(setup.balancer.address, fields=[("Host", host)])
                    assert response.status == 200, response
        except Exception as exc:  # shown by the assertion below
            problems.append(repr(exc))

    threads = [threading.Thread(target=client, args=(number % 2 == 0,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    return setup.origin.shares(start)


def test_round_robin_is_one_sequence_over_all_workers(setup: Setup) -> None:
    # 3 requests a worker: a worker with a sequence of its own would start again at the first server.
    order = ask_each_worker(setup, "turns.example", 3)
    first = order[0]
    assert order == [(first + turn) % SERVERS for turn in range(len(order))]


def test_a_thousand_round_robin_requests_are_250_for_every_server(setup: Setup) -> None:
    assert ask_from_many(setup, "thousand.example", 8, 125) == [250] * SERVERS
    status = setup.balancer.wait_until_idle()
    counted = [entry["requests"] for entry in status.instance["servers"] if entry["pool"] == "thousand"]
    assert counted == [250] * SERVERS


def test_weighted_round_robin_is_the_smooth_sequence(setup: Setup) -> None:
    # nginx's smooth weighted round robin, weights 5, 1, 1: a a b a c a a.
    order = ask(setup, "smooth.example", 14)
    assert order == [0, 0, 1, 0, 2, 0, 0] * 2


def test_weights_are_exact_proportions_over_many_clients(setup: Setup) -> None:
    assert ask_from_many(setup, "crowd.example", 7, 100) == [500, 100, 100, 0]


def test_ties_of_least_connections_take_strict_turns_over_all_workers(setup: Setup) -> None:
    order = ask_each_worker(setup, "ties.example", 3)
    turn = order[:SERVERS]
    assert sorted(turn) == list(range(SERVERS)), order
    assert order == [turn[place % SERVERS] for place in range(len(order))]


def test_weighted_least_connections_is_exact_when_idle(setup: Setup) -> None:
    order = ask(setup, "idle.example", 100)
    assert [order.count(server) for server in range(SERVERS)] == [10 * share for share in SHARES]


def test_weighted_least_connections_is_at_most_one_off_in_a_burst(setup: Setup, front_end: FrontEnd) -> None:
    count = 10 if front_end.held < 50 else 50
    origin = setup.origin
    with origin.released_at_end(), Burst(setup.balancer.address, count, host="burst.example") as burst:
        found = origin.wait_for_in_flight(count)
        ideal = [count * share // sum(SHARES) for share in SHARES]
        assert all(abs(have - want) <= 1 for have, want in zip(found, ideal, strict=True)), f"{found}, ideal {ideal}"
        origin.release()
        assert burst.statuses() == [200] * count
    setup.balancer.wait_until_idle()


def test_weighted_least_connections_is_at_most_two_percent_off_under_load(setup: Setup) -> None:
    start = len(setup.origin.arrivals)
    target = "/sleep?seconds=0.02"
    with Load(setup.balancer.address, 16, target, host="busy.example") as load:
        load.wait_for_successes(1500, 60)
    assert load.failures == []
    shares = setup.origin.shares(start)
    total = sum(shares)
    off = [100 * (have / total - share / sum(SHARES)) for have, share in zip(shares, SHARES, strict=True)]
    assert all(abs(points) <= 2 for points in off), f"{shares}: off by {[f'{points:+.2f} %' for points in off]}"


def test_full_servers_get_nothing_more_and_the_rest_is_answered_503(setup: Setup, front_end: FrontEnd) -> None:
    count = min(front_end.held, 40)
    origin, room = setup.origin, 6  # two servers of three
    with origin.released_at_end(), Burst(setup.balancer.address, count, host="limited.example") as burst:
        origin.wait_for_in_flight(room)
        # The others are answered while these six are still held.
        wait_until(lambda: burst.answered() == count - room, lambda: f"{count - room} answers, {burst.answered()} came")
        assert origin.in_flight[:2] == [3, 3]
        origin.release()
        assert sorted(burst.statuses()) == [200] * room + [503] * (count - room)
    setup.balancer.wait_until_idle()
    assert fetch(setup.balancer.address, fields=[("Host", "limited.example")]).status == 200


def test_backups_are_used_only_when_no_other_is_left(setup: Setup) -> None:
    origin, host = setup.origin, "spare.example"
    assert set(ask(setup, host, 8)) == {0}
    with origin.released_at_end(), Burst(setup.balancer.address, 2, host=host) as burst:
        origin.wait_for_in_flight(2)
        assert origin.in_flight[0] == 2
        # Its limit is reached: now the two backups share what comes.
        assert sorted(ask(setup, host, 4)) == [1, 1, 2, 2]
        origin.release()
        assert burst.statuses() == [200, 200]
    setup.balancer.wait_until_idle()
    assert set(ask(setup, host, 4)) == {0}


def test_random_reaches_every_server(setup: Setup) -> None:
    order = ask(setup, "chance.example", 200)
    # 50 expected, standard deviation 6.1: 15 and 85 are nearly six of them away.
    assert all(15 <= order.count(server) <= 85 for server in range(SERVERS)), order
    assert any(order[place] != order[place % SERVERS] for place in range(len(order))), "random takes turns"


def test_power_of_two_takes_the_less_loaded_of_its_two(setup: Setup) -> None:
    # Of two servers both are drawn every time: exact, though each request may come to another worker.
    origin = setup.origin
    with origin.released_at_end(), Burst(setup.balancer.address, 10, host="two.example") as burst:
        assert origin.wait_for_in_flight(10) == [5, 5, 0, 0]
        origin.release()
        assert burst.statuses() == [200] * 10
    setup.balancer.wait_until_idle()


def test_first_takes_the_first_server(setup: Setup) -> None:
    assert set(ask(setup, "one.example", 10)) == {0}


def test_a_policy_of_the_users_own_decides(setup: Setup) -> None:
    assert set(ask(setup, "own.example", 10)) == {SERVERS - 1}


def test_a_host_that_no_route_names_is_answered_404(setup: Setup) -> None:
    with Connection(setup.balancer.address) as connection:
        connection.send(request_bytes("/", fields=[("Host", "other.example")], close=True))
        assert connection.response().status == 404
