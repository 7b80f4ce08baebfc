"""The metrics of an instance: the name, kind, labels and meaning of each, and where its numbers come from."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prefork_lb import __version__
from prefork_lb.observe.server_condition import condition
from prefork_lb.shared.balancers import Balancer
from prefork_lb.shared.discovered import DiscoveryState
from prefork_lb.shared.statistics import BOUNDS_S
from prefork_lb.shared.view import InstanceView, PoolView, ServerView

PREFIX = "prefork_lb_"
CONDITIONS = ("up", "ready", "down", "checking", "ejected", "trial", "draining", "maintenance")

Sample = tuple[str, tuple[str, ...], float]
"""The end of the sample's name, the values of its labels, and the number."""
Samples = Iterator[Sample]

_BOUNDS = (*map(str, BOUNDS_S), "+Inf")


class Family(NamedTuple):
    """One metric."""

    name: str  # without PREFIX
    kind: str  # counter, gauge, histogram or summary
    labels: tuple[str, ...]
    help: str
    samples: Callable[[InstanceView], Samples]


def _of_instance(number: Callable[[InstanceView], float | None]) -> Callable[[InstanceView], Samples]:
    def samples(seen: InstanceView) -> Samples:
        found = number(seen)
        if found is not None:
            yield "", (), found

    return samples


def _by_pool(number: Callable[[PoolView], float]) -> Callable[[InstanceView], Samples]:
    return lambda seen: (("", (pool.name,), number(pool)) for pool in seen.pools)


def _by_server(number: Callable[[ServerView], float]) -> Callable[[InstanceView], Samples]:
    return lambda seen: (("", (server.pool, server.address), number(server)) for server in seen.servers)


def _requests(seen: InstanceView) -> Samples:
    for server in seen.servers:
        if server.numbers is not None:
            for code, number in server.numbers.codes.items():
                yield "", (server.pool, server.address, code), number
    for pool in seen.pools:
        if pool.numbers is not None:
            own = pool.numbers.own
            failed = sum(number for code, number in own.items() if code.startswith("5"))
            for code, number in (("4xx", own["4xx"]), ("499", own["499"]), ("5xx", failed)):
                yield "", (pool.name, "", code), number
    if seen.numbers is not None:
        for code, number in seen.numbers.codes.items():
            yield "", ("", "", code), number


def _own_answers(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.numbers is not None:
            for code, number in pool.numbers.own.items():
                if code != "499":  # no answer: the client left
                    yield "", (pool.name, code), number


def _request_seconds(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.numbers is not None:
            count = 0
            for bound, count in zip(_BOUNDS, accumulate(pool.numbers.buckets), strict=True):
                yield "_bucket", (pool.name, bound), count
            yield "_count", (pool.name,), count
            yield "_sum", (pool.name,), pool.numbers.seconds


def _answer_seconds(seen: InstanceView) -> Samples:
    for server in seen.servers:
        if server.numbers is not None:
            yield "", (server.pool, server.address), server.numbers.seconds


def _bytes(seen: InstanceView) -> Samples:
    for server in seen.servers:
        if server.numbers is not None:
            yield "", (server.pool, server.address, "in"), server.numbers.bytes_in
            yield "", (server.pool, server.address, "out"), server.numbers.bytes_out


def _states(seen: InstanceView) -> Samples:
    for server in seen.servers:
        found, _ = condition(server)
        for word in CONDITIONS:
            yield "", (server.pool, server.address, word), word == found


def _checks(seen: InstanceView) -> Samples:
    for server in seen.servers:
        yield "", (server.pool, server.address, "passed"), server.checks_passed
        yield "", (server.pool, server.address, "failed"), server.checks_failed


def _sessions(seen: InstanceView) -> Samples:
    for server in seen.servers:
        if server.sessions is not None:
            yield "", (server.pool, server.address), server.sessions


def _retries(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        yield "", (pool.name, "retry"), pool.retried
        yield "", (pool.name, "hedge"), pool.hedged


def _queue_seconds(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        yield "_count", (pool.name,), pool.queued
        yield "_sum", (pool.name,), pool.queued_s


def _of_balancers(number: Callable[[Balancer], float]) -> Callable[[InstanceView], Samples]:
    return lambda seen: (("", (each.name,), number(each)) for each in seen.balancers)


def _scaling_wanted(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.scaling is not None:
            yield "", (pool.name,), pool.scaling.wanted


def _scaling_servers(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.scaling is not None:
            yield "", (pool.name, "running"), pool.scaling.running
            yield "", (pool.name, "starting"), pool.scaling.starting
            yield "", (pool.name, "ending"), pool.scaling.ending


def _discovery_up(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.discovery is not None:
            yield "", (pool.name,), pool.discovery.state is DiscoveryState.GOOD


def _discovery_servers(seen: InstanceView) -> Samples:
    for pool in seen.pools:
        if pool.discovery is not None:
            yield "", (pool.name,), pool.discovery.servers


def _filter_failures(seen: InstanceView) -> Samples:
    for each in seen.filters:
        yield "", (each.name,), each.failures


def _filter_late(seen: InstanceView) -> Samples:
    for each in seen.filters:
        yield "", (each.name,), each.late


def _worker_restarts(seen: InstanceView) -> Samples:
    yield "", ("ended",), seen.workers_ended
    yield "", ("died",), seen.workers_died


def _clients(seen: InstanceView) -> float | None:
    told = [worker.clients for worker in seen.workers if worker.clients is not None]
    return sum(told) if told else None


_SERVER = ("pool", "server")

FAMILIES = (
    Family("build_info", "gauge", ("version",), "Always 1; the version is the label.",
           lambda seen: iter([("", (__version__,), 1.0)])),
    Family("start_time_seconds", "gauge", (), "When the instance began, in seconds since the epoch.",
           _of_instance(lambda seen: seen.started)),
    Family("generation", "gauge", (), "Grows when the table of servers changes.", _of_instance(lambda seen: seen.generation)),

    Family("requests_total", "counter", (*_SERVER, "code"),
           "Requests that are over, by class of the answer. Without a server this proxy answered itself; 499: the client left "
           "before an answer. Without a pool the request reached none.", _requests),
    Family("own_answers_total", "counter", ("pool", "status"), "Requests to a pool that this proxy answered itself, by status.",
           _own_answers),
    Family("request_seconds", "histogram", ("pool",),
           "Time of a request from its head to the end of the answer; of a tunnel to its beginning.", _request_seconds),
    Family("answer_seconds_total", "counter", _SERVER, "Time that the answers of a server took, of request_seconds.",
           _answer_seconds),
    Family("bytes_total", "counter", (*_SERVER, "direction"),
           "Bytes of bodies, from clients (in) and to clients (out), of requests that a server answered.", _bytes),

    Family("in_flight", "gauge", _SERVER, "Requests in flight.", _by_server(lambda server: server.in_flight)),
    Family("max_connections", "gauge", _SERVER, "Most requests in flight; 0: no limit.",
           _by_server(lambda server: server.max_connections)),
    Family("sessions", "gauge", _SERVER, "Sessions that are stored for the server (`learn`); of a drained server in a pool with "
           "`cookie` or `route` the requests of sessions in the last minute.", _sessions),
    Family("server_up", "gauge", _SERVER, "1: the server gets requests: it is ready, up by its checks or not checked, and not "
           "ejected.", _by_server(lambda server: server.usable)),
    Family("server_state", "gauge", (*_SERVER, "state"), "1 for the state that the server has, 0 for the others.", _states),
    Family("server_weight", "gauge", _SERVER, "Weight in force.", _by_server(lambda server: server.weight)),
    Family("attempts_total", "counter", _SERVER, "Requests sent to the server, retries included.",
           _by_server(lambda server: server.requests)),
    Family("failures_total", "counter", _SERVER, "Those of them that failed by the server's fault.",
           _by_server(lambda server: server.failures)),
    Family("ejections_total", "counter", _SERVER, "Times that failures took the server out.",
           _by_server(lambda server: server.times_ejected)),
    Family("checks_total", "counter", (*_SERVER, "result"), "Active checks, by result: passed or failed.", _checks),

    Family("retries_total", "counter", ("pool", "kind"),
           "Further attempts: after a failure (retry), or beside an attempt that takes long (hedge).", _retries),
    Family("queue_length", "gauge", ("pool",), "Requests that wait for a server.", _by_pool(lambda pool: pool.waiting)),
    Family("queue_seconds", "summary", ("pool",), "Waits for a server that are over.", _queue_seconds),
    Family("refused_total", "counter", ("pool",), "Requests and retries that a limit of the pool refused.",
           _by_pool(lambda pool: pool.refused)),
    Family("panic", "gauge", ("pool",), "1: too few servers are up by their checks, and all are used.",
           _by_pool(lambda pool: pool.panic)),
    Family("scaling_wanted", "gauge", ("pool",), "Servers that a pool should have, of those that the balancer starts itself.",
           _scaling_wanted),
    Family("scaling_servers", "gauge", ("pool", "state"), "Servers that the balancer has started itself, by state: running, "
           "starting or ending.", _scaling_servers),
    Family("discovery_up", "gauge", ("pool",), "1: the last look at the pool's list of servers was good.", _discovery_up),
    Family("discovery_servers", "gauge", ("pool",), "Servers in the pool's last good list.", _discovery_servers),

    Family("split_weight", "gauge", ("route", "pool"),
           "Weight in force of a pool in a route's split; routes are numbered from 1, as the configuration has them.",
           lambda seen: (("", names, weight) for names, weight in seen.split_weights.items())),

    Family("filter_failures_total", "counter", ("filter",), "Exceptions that a filter has raised.", _filter_failures),
    Family("filter_late_total", "counter", ("filter",), "Calls of a filter that took longer than proxy.timeouts.filter.",
           _filter_late),

    Family("cluster_together", "gauge", (), "1: this balancer shares with others; 0: it goes on by itself.",
           _of_instance(lambda seen: seen.together if seen.balancers else None)),
    Family("cluster_round_seconds", "gauge", ("balancer",), "Time that the last exchange of a balancer with the store took.",
           _of_balancers(lambda each: each.round_us / 1e6)),
    Family("cluster_silent_seconds", "gauge", ("balancer",), "Time since a balancer last reported.",
           _of_balancers(lambda each: each.silent_s)),
    Family("cluster_in_flight", "gauge", ("balancer",), "Requests in flight of a balancer, as it reported last.",
           _of_balancers(lambda each: each.in_flight)),
    Family("cluster_checks", "gauge", ("balancer",), "1: the checks of this balancer hold for all.",
           _of_balancers(lambda each: each.checks)),

    Family("client_connections", "gauge", (), "Connections of clients (ProxyWorker).", _of_instance(_clients)),
    Family("shed_total", "counter", (), "Requests and connections refused because a worker had too much to do.",
           _of_instance(lambda seen: seen.numbers.shed if seen.numbers is not None else None)),
    Family("loop_lag_seconds", "gauge", (), "How far the loop of the worst worker lags, at most within about a second.",
           _of_instance(lambda seen: max((worker.lag_s for worker in seen.workers if worker.lag_s is not None), default=None))),
    Family("workers", "gauge", (), "Worker processes that live, those that were replaced and linger included.",
           _of_instance(lambda seen: len(seen.workers))),
    Family("worker_restarts_total", "counter", ("cause",),
           "Workers that are over: they ended in good order (a reload, for one), or died.", _worker_restarts),
    Family("controller_up", "gauge", (), "1: the controller is at work.", _of_instance(lambda seen: bool(seen.controller))),
    Family("reclaimed_claims_total", "counter", (), "Requests that were in flight in workers when these died.",
           _of_instance(lambda seen: seen.reclaimed)),
    Family("lock_repairs_total", "counter", (), "Times that a process died while it held the lock.",
           _of_instance(lambda seen: seen.repairs)),
)
"""All metrics, in the order in which they are scraped."""
