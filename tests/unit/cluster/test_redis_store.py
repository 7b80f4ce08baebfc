"""The store over a real redis-server."""
from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork_lb.cluster.redis_store import RedisStore
from prefork_lb.cluster.store import Sent, StoreError
from prefork_lb.config.cluster import ClusterConfig
from tests.support.ports import free_port
from tests.support.store import REDIS_SERVER, WHY_NOT, RedisServer
from tests.support.store_groups import Sharded
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(REDIS_SERVER is None, reason=WHY_NOT)

KEY = "web", "10.0.0.1:80"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("r")) as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> RedisStore:
    server.command("FLUSHALL")
    return RedisStore(ClusterConfig(url=server.url, name="site"))


def test_an_exchange(store: RedisStore) -> None:
    received = store.exchange(Sent("a", b"report a", tables={b"\0digest": b"table"}, results=b"results a"))
    assert received.reports == [b"report a"]
    assert received.now_ms > 0
    received = store.exchange(Sent("b", b"report b", wanted_tables=[b"\0digest", b"other"], results_of="a"))
    assert sorted(received.reports) == [b"report a", b"report b"]
    assert received.tables == {b"\0digest": b"table"} and received.results == b"results a"
    assert store.exchange(Sent("b", b"report b", gone=["a"])).reports == [b"report b"]
    store.leave("b")
    assert store.exchange(Sent("c", b"report c")).reports == [b"report c"]


def test_no_more_than_the_limit_is_granted(store: RedisStore) -> None:
    def ask(balancer: str, part: int) -> int:
        return store.exchange(Sent(balancer, b"", parts={KEY: (10, part)})).parts[KEY]

    assert [ask("a", 6), ask("b", 6), ask("b", 2), ask("a", 9), ask("b", 5)] == [6, 4, 2, 8, 2]
    store.exchange(Sent("b", b"", gone=["a"]))
    assert ask("b", 9) == 9  # the part of one without a report is free


def test_sessions_are_passed_on(store: RedisStore) -> None:
    after = store.exchange(Sent("a", b"", sessions_after=b"0-0")).sessions_after
    store.exchange(Sent("b", b"", sessions=b"one"))
    store.exchange(Sent("b", b"", sessions=b"two"))
    received = store.exchange(Sent("a", b"", sessions_after=after))
    assert [message for _, message in received.sessions] == [b"one", b"two"]
    assert store.exchange(Sent("a", b"", sessions_after=received.sessions_after)).sessions == []


def test_a_store_that_hangs_is_given_up_within_a_second(store: RedisStore, server: RedisServer) -> None:
    store.exchange(Sent("a", b""))
    server.stop_running()
    begun = time.monotonic()
    with pytest.raises(StoreError, match="Timeout"):
        store.exchange(Sent("a", b""))
    server.go_on()
    assert time.monotonic() - begun < 5  # 0.4 s by itself; the machine may be busy
    assert store.exchange(Sent("a", b"again")).reports == [b"again"]


def test_redis_cluster(tmp_path: Path) -> None:
    """One node that has all slots: redis-py takes another way there, and lacks some commands."""
    port = free_port()
    options = "--cluster-enabled", "yes", "--port", str(port), "--cluster-port", str(free_port()), "--bind", "127.0.0.1"
    with RedisServer(tmp_path, *options) as server:
        server.command("CLUSTER ADDSLOTSRANGE 0 16383")
        wait_until(lambda: b"cluster_state:ok" in server.command("CLUSTER INFO"), "the node has all slots", 20)
        store = RedisStore(ClusterConfig(url=f"redis://127.0.0.1:{port}", kind="cluster"))
        sent = Sent("a", b"report", results=b"results", results_of="a", parts={KEY: (10, 6)}, sessions=b"one",
                    sessions_after=b"0-0")
        received = store.exchange(sent)
        assert (received.reports, received.results, received.parts) == ([b"report"], b"results", {KEY: 6})
        assert [message for _, message in received.sessions] == [b"one"]
        store.leave("a")


def test_a_master_of_a_redis_cluster_that_has_none_of_the_keys_is_not_needed(tmp_path: Path) -> None:
    """redis-py asks the first master for the keys of a script, and no other one when that is gone."""
    with Sharded(tmp_path) as group:
        store = RedisStore(ClusterConfig(url=group.url, kind="cluster", name="site"))
        store.exchange(Sent("a", b"report"))
        assert group.owner("prefork-lb:{site}:reports") is not group.masters[0]
        group.masters[0].kill()
        received = store.exchange(Sent("a", b"report", parts={KEY: (10, 6)}))
        assert (received.reports, received.parts) == ([b"report"], {KEY: 6})


def test_why_the_store_refuses_is_told_in_the_same_words_each_time(store: RedisStore, server: RedisServer) -> None:
    """Else each attempt is news, and has its line in the log."""
    server.command("CONFIG SET maxmemory 1")
    told = set()
    for report in (b"one) of pipeline caused error: ", b"two\n"):
        with pytest.raises(StoreError, match="OutOfMemoryError: command not allowed") as error:
            store.exchange(Sent("a", report))
        told.add(str(error.value))
    server.command("CONFIG SET maxmemory 0")
    assert len(told) == 1 and "HSET" not in told.pop()


def test_sentinels_that_are_not_there_are_told_shortly(tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    config = ClusterConfig(url=f"redis://:hidden@127.0.0.1:{first}", kind="sentinel", service="x",
                           sentinels=(f"127.0.0.1:{second}",))
    with pytest.raises(StoreError, match="MasterNotFoundError: No master found for 'x'") as error:
        RedisStore(config).exchange(Sent("a", b""))
    told = str(error.value)
    assert str(first) in told and str(second) in told
    assert "redis.client" not in told and "hidden" not in told and len(told) < 300


def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ConnectionError"):
        RedisStore(ClusterConfig(url=f"unix://{tmp_path}/nobody")).exchange(Sent("a", b""))


def test_a_redis_cluster_that_is_not_there() -> None:
    with pytest.raises(StoreError, match="RedisClusterException"):
        RedisStore(ClusterConfig(url=f"redis://127.0.0.1:{free_port()}", kind="cluster")).exchange(Sent("a", b""))
