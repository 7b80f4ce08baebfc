"""Servers that fail under traffic: what clients see of it, and when the servers are back."""
from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.answering import answering
from tests.support.balancer import GTHREAD, PROXY, Balancer, FrontEnd, pool_text
from tests.support.client import fetch
from tests.support.load import Load
from tests.support.moody import CHECK, MoodyOrigin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

FRONT_ENDS = (GTHREAD, PROXY)
EJECTION = "[pools.web.ejection]\nfailures = 3\nseconds = 1\n"
HEALTH = f'[pools.web.health]\npath = "{CHECK}"\ninterval = 0.2\nfast_interval = 0.1\ntimeout = 20\nrise = 2\nfall = 2\n'
RETRIES = '[pools.web.retries]\nattempts = 3\nstatuses = ["500-504"]\non = ["connect", "reset", "timeout"]\n'


@pytest.fixture(params=FRONT_ENDS, ids=str)
def kind(request: pytest.FixtureRequest) -> FrontEnd:
    front_end: FrontEnd = request.param
    return front_end


@pytest.fixture
def origin() -> Iterator[MoodyOrigin]:
    with MoodyOrigin(4) as origin:
        yield origin


def server_of(balancer: Balancer, address: str) -> dict[str, object]:
    found = [server for server in balancer.status().instance["servers"] if server["address"] == address]
    assert len(found) == 1, f"{address} is not once in {balancer.status()}"
    return dict(found[0])


def wait_for_server(balancer: Balancer, address: str, seconds: float = 20.0, **values: object) -> None:
    wait_until(lambda: all(server_of(balancer, address)[name] == value for name, value in values.items()),
               lambda: f"{values}, now {server_of(balancer, address)}", seconds, every=0.05)


def statuses(balancer: Balancer, count: int) -> list[int]:
    return [fetch(balancer.address).status for _ in range(count)]


# -- passive -------------------------------------------------------------------------------------------------------


def test_a_server_that_answers_500_is_ejected_and_comes_back(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses, "round-robin") + EJECTION, kind, workers=2)
    origin.moods[1] = 500

    seen: list[int] = []

    def ask(count: int) -> list[int]:
        seen.extend(statuses(balancer, count))
        return seen[-count:]

    def wait_for_the_log() -> None:
        """All that failed were the three before the ejection, and trials."""
        wait_until(lambda: seen.count(500) == 3 + balancer.log().count("its trial failed"), lambda: f"{seen}\n{balancer.log()}")

    begun = time.monotonic()
    ask(40)
    wait_for_the_log()
    assert "is ejected for 1" in balancer.log()
    assert not server_of(balancer, origin.addresses[1])["usable"] or time.monotonic() - begun > 1
    # Its time is over: one request finds it ill still, and it is out for twice as long.
    wait_until(lambda: 500 in ask(8), "a trial", every=0.05)
    ask(40)
    wait_for_the_log()
    assert set(seen) == {200, 500}
    origin.moods[1] = "well"
    wait_until(lambda: statuses(balancer, 4) == [200] * 4 and server_of(balancer, origin.addresses[1])["usable"],
               "it is back", every=0.05)
    start = len(origin.seen)
    assert statuses(balancer, 40) == [200] * 40
    assert origin.share(1, start) >= 8


def test_no_more_servers_than_allowed_are_ejected_and_never_the_last(rig: Rig, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + EJECTION.replace("seconds = 1", "seconds = 60"), PROXY, workers=2)
    origin.moods[:] = [500] * 4
    assert set(statuses(balancer, 60)) == {500}, "the clients get the servers' own answers"
    wait_until(lambda: balancer.log().count("is ejected") >= 2, balancer.log)
    assert balancer.log().count("is ejected") == 2  # max_ejected is 50 %


def test_clients_that_leave_are_no_failures(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses[:2]) + EJECTION, kind, workers=1)
    origin.moods[:] = ["hang"] * 4
    with origin.released_at_end():
        for _ in range(8):
            with pytest.raises((TimeoutError, OSError)):
                fetch(balancer.address, timeout=0.1)
        wait_until(lambda: sum(balancer.status().in_flight.values()) == 0, "nothing is in flight")
        assert "ejected" not in balancer.log()


def test_failing_fast_attracts_no_load(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    """Without ejection: the least busy server must not be the one that fails at once."""
    clients, penalty_s = 6, 200  # longer than the test takes
    text = pool_text(origin.addresses) + f"[pools.web.ejection]\nfailures = 0\npenalty = {penalty_s}\n"
    balancer = rig.balancer(text, kind, workers=2)
    origin.moods[2] = 503
    with Load(balancer.address, clients, "/") as load:
        load.wait_for_successes(600)
    # With a failure for each client it counts as busier than any other server can be.
    assert origin.share(2) <= clients, (origin.share(2), len(origin.seen))


# -- active --------------------------------------------------------------------------------------------------------


def test_checks_take_a_server_out_and_back(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + HEALTH, kind, workers=2)
    address = origin.addresses[0]
    wait_for_server(balancer, address, check="up")
    origin.checks[0] = 503
    wait_for_server(balancer, address, check="down", usable=False)
    assert "status 503" in str(server_of(balancer, address)["note"])
    start = len(origin.seen)
    assert statuses(balancer, 30) == [200] * 30 and origin.share(0, start) == 0
    origin.checks[0] = "well"
    wait_for_server(balancer, address, check="up", usable=True)
    statuses(balancer, 30)
    assert origin.share(0, start) > 0
    log = balancer.log()
    assert f"server {address} is down: " in log and f"server {address} is up: " in log


def test_without_a_good_check_a_new_server_gets_nothing(rig: Rig, origin: MoodyOrigin) -> None:
    origin.checks[3] = "hang"
    health = HEALTH.replace("timeout = 20", "timeout = 2") + 'start = "checking"\n'
    balancer = rig.balancer(pool_text(origin.addresses) + health, PROXY, workers=1)
    with origin.released_at_end():
        for address in origin.addresses[:3]:
            wait_for_server(balancer, address, check="up")
        wait_for_server(balancer, origin.addresses[3], check="down")
        statuses(balancer, 20)
        assert origin.share(3) == 0


def test_when_too_few_are_up_all_are_used(rig: Rig, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + HEALTH, PROXY, workers=1)
    origin.checks[:] = [500, 500, 500, "well"]
    for address in origin.addresses[:3]:
        wait_for_server(balancer, address, check="down")
    start = len(origin.seen)
    assert statuses(balancer, 40) == [200] * 40
    assert all(origin.share(index, start) == 10 for index in range(4))
    assert "panic" in balancer.log() and balancer.status().instance["pools"][0]["panic"]
    shown = balancer.command("status")
    assert "panic: all servers are used" in shown.stdout
    origin.checks[:] = ["well"] * 4
    for address in origin.addresses:
        wait_for_server(balancer, address, check="up")
    statuses(balancer, 1)
    assert "no panic any more" in balancer.log() and not balancer.status().instance["pools"][0]["panic"]


@pytest.mark.parametrize(("answer", "reason"), [
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "a line of the head ends with LF alone"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
     "both Transfer-Encoding and Content-Length"),
    (b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\nContent-Length: 2\r\n\r\nok", "a folded line (obs-fold)"),
])
def test_a_server_whose_answers_traffic_refuses_fails_its_checks_with_the_reason(rig: Rig, answer: bytes, reason: str) -> None:
    with answering() as well, answering(answer) as malformed:
        pool = pool_text([well, malformed], "round-robin", more="panic_threshold = 0")
        balancer = rig.balancer(pool + HEALTH, PROXY, workers=1)
        wait_for_server(balancer, malformed, check="down", usable=False)
        wait_for_server(balancer, well, check="up")
        assert reason in str(server_of(balancer, malformed)["note"])
        assert f"server {malformed} is down: {reason}" in balancer.log()
        assert statuses(balancer, 10) == [200] * 10


def test_the_limits_of_the_traffic_s_heads_are_those_of_the_checks(rig: Rig) -> None:
    long = b"HTTP/1.1 200 OK\r\nX: " + bytes(2000).replace(b"\0", b"x") + b"\r\nContent-Length: 2\r\n\r\nok"
    with answering(long) as address:
        balancer = rig.balancer("[proxy.limits]\nline_bytes = 1024\n" + pool_text([address]) + HEALTH, PROXY, workers=1)
        wait_for_server(balancer, address, check="down")
        assert "the field X has 2003 bytes, at most 1024 are allowed" in str(server_of(balancer, address)["note"])


def test_a_server_that_expects_a_proxy_header_is_checked_with_one(rig: Rig) -> None:
    with answering(expects=b"PROXY ") as address:
        balancer = rig.balancer(pool_text([f'{{ address = "{address}", proxy_protocol = 1 }}']) + HEALTH
                                + 'start = "checking"\n', PROXY, workers=1)
        wait_for_server(balancer, address, check="up")


def controller(balancer: Balancer) -> int:
    return int(wait_until(lambda: balancer.status().instance["controller"], "a controller", every=0.05))


def test_the_controller_is_back_after_a_kill_and_ends_with_its_master(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + HEALTH, kind, workers=2)
    first = controller(balancer)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: balancer.status().instance["controller"] not in (0, first), "another one", every=0.05)
    second = controller(balancer)
    origin.checks[0] = 500
    wait_for_server(balancer, origin.addresses[0], check="down")
    os.kill(balancer.master, signal.SIGKILL)
    wait_until(lambda: not processes.is_running(second), "it ends, too")


def test_a_reload_keeps_what_checks_found_and_follows_the_new_configuration(rig: Rig, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + HEALTH, PROXY, workers=2)
    origin.checks[0] = 500
    wait_for_server(balancer, origin.addresses[0], check="down")
    before = controller(balancer)
    balancer.config_file.write_text(pool_text(origin.addresses[:3]) + HEALTH)
    balancer.reload()
    assert server_of(balancer, origin.addresses[0])["check"] == "down"
    wait_until(lambda: is_passed_over(origin, 3), "a server that was left out is not checked any more")
    balancer.config_file.write_text(pool_text(origin.addresses[:3]))
    balancer.reload()
    wait_for_server(balancer, origin.addresses[0], check="none", usable=True)
    assert controller(balancer) == before


# -- retries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mood", [500, 503, "reset", "hang"])
def test_with_retries_no_client_sees_a_failing_server(rig: Rig, kind: FrontEnd, origin: MoodyOrigin, mood: str | int) -> None:
    timeouts = "[proxy.timeouts]\nresponse = 2\n" if mood == "hang" else ""
    balancer = rig.balancer(timeouts + pool_text(origin.addresses) + RETRIES, kind, workers=2)
    with origin.released_at_end(), Load(balancer.address, 4, "/") as load:
        load.wait_for_successes(50)
        origin.moods[1] = mood
        load.wait_for_successes(300)
    assert load.failures == []


def test_a_post_is_sent_once_unless_it_has_a_key(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    text = pool_text(origin.addresses[:2], "first") + RETRIES
    balancer = rig.balancer(text + "[pools.web.ejection]\nfailures = 0\n", kind, workers=1)
    origin.moods[0] = 503
    length = [("Content-Length", "3")]
    assert fetch(balancer.address, "/", "POST", fields=length, body=b"abc").status == 503
    assert fetch(balancer.address, "/", "POST", fields=[*length, ("Idempotency-Key", '"k"')], body=b"abc").status == 200
    assert [index for index, _ in origin.seen] == [0, 0, 1]


def test_when_all_fail_the_client_gets_the_last_real_answer(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    text = pool_text(origin.addresses[:3], "first") + RETRIES
    balancer = rig.balancer(text, kind, workers=1)
    origin.moods[:3] = [502, 503, "reset"]
    response = fetch(balancer.address)
    assert (response.status, response.body) == (503, b"origin-1")
    wait_until(lambda: sum(balancer.status().in_flight.values()) == 0, "nothing is held")


def test_retries_stay_within_the_budget_of_all_workers(rig: Rig, origin: MoodyOrigin) -> None:
    budget = "budget = 20\nfloor = 5\nbackoff = 0\n"
    text = pool_text(origin.addresses) + RETRIES + budget + "[pools.web.ejection]\nfailures = 0\n"
    balancer = rig.balancer(text, PROXY, workers=2)
    origin.moods[:] = [503] * 4
    count = 100
    assert statuses(balancer, count) == [503] * count
    retries = len(origin.seen) - count
    # The attempts themselves are requests of the pool, so 20 % of all are a quarter of the clients' requests.
    assert 5 <= retries <= 0.25 * count + 1, retries


# -- operators -----------------------------------------------------------------------------------------------------


def test_a_drained_server_gets_nothing_new_and_drain_waits_for_the_rest(rig: Rig, kind: FrontEnd, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses[:2]), kind, workers=2)
    with Load(balancer.address, 4, "/", pause_s=0.03) as load:
        for _ in range(2):
            for index, address in enumerate(origin.addresses[:2]):
                load.wait_for_successes(20)
                done = balancer.by_hand("drain", address, "--wait")
                assert done.returncode == 0 and "nothing in flight" in done.stdout, done
                start = len(origin.seen)
                load.wait_for_successes(20)
                assert origin.share(index, start) == 0
                assert balancer.by_hand("ready", address).returncode == 0
    assert load.failures == []


def is_passed_over(origin: MoodyOrigin, index: int) -> bool:
    """Whether this server is not checked while every other one is five times."""
    before, goals = origin.checked[index], [count + 5 for count in origin.checked]
    wait_until(lambda: all(count >= goal for number, (count, goal) in enumerate(zip(origin.checked, goals, strict=True))
                           if number != index), lambda: f"checks of the others: {origin.checked}, wanted {goals}")
    return origin.checked[index] == before


def test_a_server_under_maintenance_is_not_checked(rig: Rig, origin: MoodyOrigin) -> None:
    balancer = rig.balancer(pool_text(origin.addresses) + HEALTH, PROXY, workers=1)
    wait_until(lambda: min(origin.checked) > 0, "all are checked")
    assert balancer.by_hand("maintenance", origin.addresses[0]).returncode == 0
    wait_until(lambda: is_passed_over(origin, 0), "it is not checked")
    assert server_of(balancer, origin.addresses[0])["state"] == "maintenance"


def test_weight_by_command(rig: Rig, origin: MoodyOrigin) -> None:
    text = pool_text(origin.addresses[:2], "weighted-round-robin")
    balancer = rig.balancer(text, PROXY, workers=2)
    assert balancer.by_hand("weight", origin.addresses[0], "3").returncode == 0
    statuses(balancer, 40)
    assert (origin.share(0), origin.share(1)) == (30, 10)
    assert balancer.by_hand("weight", origin.addresses[0], "default").returncode == 0
    start = len(origin.seen)
    statuses(balancer, 40)
    assert (origin.share(0, start), origin.share(1, start)) == (20, 20)


@pytest.mark.parametrize(("arguments", "message"), [
    (("drain", "127.0.0.1:1"), "no server '127.0.0.1:1'; there are "),
    (("weight", "SERVER", "0"), "expected 1 to 1000"),
    (("ready", "SERVER", "--pool", "nobody"), "in pool 'nobody'"),
    (("ready", "SERVER", "--master", "1"), "no instance of the gunicorn master 1 runs"),
])
def test_commands_say_what_is_wrong(rig: Rig, origin: MoodyOrigin, arguments: tuple[str, ...], message: str) -> None:
    balancer = rig.balancer(pool_text(origin.addresses), PROXY, workers=1)
    done = balancer.by_hand(*[origin.addresses[0] if word == "SERVER" else word for word in arguments])
    assert done.returncode != 0 and message in done.stderr, done


def test_what_operators_set_outlives_a_reload_and_a_restart(rig: Rig, tmp_path: Path, origin: MoodyOrigin) -> None:
    state = tmp_path / "state.json"
    text = pool_text(origin.addresses[:2]) + f'[state]\nfile = "{state}"\nmax_age = 60\n'
    balancer = rig.balancer(text, PROXY, workers=2)
    controller(balancer)
    assert balancer.by_hand("drain", origin.addresses[0]).returncode == 0
    balancer.reload()
    assert server_of(balancer, origin.addresses[0])["state"] == "drain"
    wait_until(lambda: state.exists() and origin.addresses[0] in state.read_text(), "it is saved")
    balancer.stop()
    balancer.start()
    keeper = controller(balancer)
    start = len(origin.seen)
    statuses(balancer, 20)
    assert origin.share(0, start) == 0 and server_of(balancer, origin.addresses[0])["state"] == "drain"
    balancer.stop()
    wait_until(lambda: not processes.is_running(keeper), "the controller ends, which writes the file a last time")
    state.write_text(state.read_text().replace('"written": ', '"written": 1'))  # in the far future
    balancer.start()
    assert server_of(balancer, origin.addresses[0])["state"] == "ready" and "not believed" in balancer.log()


def test_a_server_that_comes_back_begins_with_a_small_share(rig: Rig, origin: MoodyOrigin) -> None:
    text = pool_text(origin.addresses[:2], "weighted-round-robin", more="slow_start = 4")
    balancer = rig.balancer(text, PROXY, workers=2)
    address = origin.addresses[0]
    assert balancer.by_hand("drain", address).returncode == 0
    begun, start = time.monotonic(), len(origin.seen)
    assert balancer.by_hand("ready", address).returncode == 0
    statuses(balancer, 100)
    weight = min(1, (time.monotonic() - begun) / 4)  # of the other server's, at the end at the latest
    assert origin.share(0, start) <= 100 * weight / (1 + weight) + 5

    def is_even() -> bool:
        start = len(origin.seen)
        statuses(balancer, 100)
        return origin.share(0, start) == 50

    wait_until(is_even, "its whole share, after slow start", 20)
