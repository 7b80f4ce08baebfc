"""Filters on the way of a request: what they see, what becomes of their changes, and of their failures."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from prefork_lb.clock import ManualClock
from prefork_lb.errors import FilterFailed, OwnAnswer
from prefork_lb.filters import Answer, Exchange, Filter, Memory, Setup
from prefork_lb.filters import Request as SeenRequest
from prefork_lb.filters import Response as SeenResponse
from prefork_lb.log_summary import summary
from prefork_lb.net.networks import lies_in
from prefork_lb.proxy.engine import Engine
from prefork_lb.proxy.filtering import FilteringEngine, LoadedFilter, chosen_key, tell_filters
from prefork_lb.proxy.refusal_log import tell_refusal
from prefork_lb.proxy.reply import Reply
from prefork_lb.proxy.request import Request
from prefork_lb.routing.actions import NO_CHANGES, Actions, of_requests
from prefork_lb.routing.guards import Passed
from prefork_lb.routing.match import Route, Router
from tests.unit.filters.asked import NoHTTP
from tests.unit.proxy.loopback import Connection, ScriptedServer, Source
from tests.unit.proxy.rig import Rig, request

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: s\r\nX-A: 1\r\n\r\nok"


class Site:
    """A server, and an engine over it whose filters are functions of the test's."""

    def __init__(self, stack: ExitStack) -> None:
        self.heads: list[bytes] = []
        self.server = stack.enter_context(ScriptedServer(self._serve))
        self.rig = stack.enter_context(Rig(self.server.address))
        self.clock = ManualClock()
        self.failures = self.late = 0

    def _serve(self, connection: Connection) -> None:
        while True:
            self.heads.append(connection.head())
            connection.send(ANSWER)

    def loaded(self, name: str, kind: type[Filter]) -> LoadedFilter:
        return LoadedFilter(name, kind(Setup({}, Memory(), NoHTTP())), 1.0, self.clock, self._failed, self._late)

    def engine(self, *kinds: type[Filter], of_pool: Sequence[type[Filter]] = (), actions: Actions | None = None) -> Engine:
        names, others = [f"site:{kind.__name__}" for kind in kinds], [f"pool:{kind.__name__}" for kind in of_pool]
        filters = {name: self.loaded(name, kind) for name, kind in zip(names + others, (*kinds, *of_pool), strict=True)}
        pools = {"web": self.rig.pool, "other": self.rig.pool}
        router = Router([Route("web", filters=names, actions=actions)])
        return FilteringEngine(router, pools, self.rig.settings, filters, {"web": others}, lies_in(["192.0.2.7"]))

    def _failed(self) -> None:
        self.failures += 1

    def _late(self) -> None:
        self.late += 1


@pytest.fixture
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack)


def whole(reply: Reply) -> bytes:
    try:
        return b"".join(iter(reply.read, b""))
    finally:
        reply.close()


def looking(look: Callable[[SeenRequest], Answer | None]) -> type[Filter]:
    class Looks(Filter):
        def on_request(self, request: SeenRequest) -> Answer | None:
            return look(request)

    return Looks


def test_what_a_filter_changes_goes_to_the_server_and_stays_out_of_the_log(site: Site) -> None:
    def change(seen: SeenRequest) -> None:
        seen.method, seen.target, seen.host = "POST", "/new?x", "b.test"
        seen.fields.set("X-User", "me")

    fields = [(b"Connection", b"close, X-User"), (b"X_User", b"root"), (b"X-Forwarded-For", b"198.51.100.1")]
    asked = request(fields=fields, target=b"/old")
    assert whole(site.engine(looking(change)).exchange(asked)) == b"ok"
    head = site.heads[0]
    assert head.startswith(b"POST /new?x HTTP/1.1\r\nHost: b.test\r\n") and b"X-User: me\r\n" in head and b"root" not in head
    assert (asked.method, asked.target) == (b"GET", b"/old")
    assert site.rig.in_flight == [0]


def test_each_request_is_looked_at_though_its_head_comes_again(site: Site) -> None:
    seen: list[str] = []
    engine = site.engine(looking(lambda request: seen.append(request.client)))
    asked = request()
    for _ in range(3):
        whole(engine.exchange(asked))
    assert seen == ["192.0.2.7"] * 3


def test_the_client_is_the_one_that_trusted_proxies_tell(site: Site) -> None:
    seen: list[str] = []
    whole(site.engine(looking(lambda request: seen.append(request.client))).exchange(
        request(fields=[(b"X-Forwarded-For", b"198.51.100.1")])))
    assert seen == ["198.51.100.1"]


def test_filters_of_the_route_come_first_then_those_of_the_pool(site: Site) -> None:
    order: list[str] = []

    class First(Filter):
        def on_request(self, request: SeenRequest) -> None:
            order.append("first")

        def on_response(self, request: SeenRequest, response: SeenResponse) -> None:
            order.append("first again")

    class Second(Filter):
        def on_request(self, request: SeenRequest) -> None:
            order.append("second")

        def on_response(self, request: SeenRequest, response: SeenResponse) -> None:
            order.append("second again")

    whole(site.engine(First, of_pool=[Second]).exchange(request()))
    assert order == ["first", "second", "second again", "first again"]


def test_filters_are_those_of_the_pool_that_was_chosen(site: Site) -> None:
    order: list[str] = []

    def choose(seen: SeenRequest) -> None:
        seen.pool = "other"

    asked = request()
    whole(site.engine(looking(choose), of_pool=[looking(lambda seen: order.append("web"))]).exchange(asked))
    assert order == [] and asked.plan is not None


def test_a_filter_of_a_pool_may_not_choose_another_one(site: Site) -> None:
    def choose(seen: SeenRequest) -> None:
        seen.pool = "other"

    with pytest.raises(FilterFailed, match="only a filter of a route may choose"):
        site.engine(of_pool=[looking(choose)]).exchange(request())


def test_a_key_of_its_own_goes_before_the_pools(site: Site) -> None:
    def choose(seen: SeenRequest) -> None:
        seen.key = "tenant-1"

    asked = request()
    whole(site.engine(looking(choose)).exchange(asked))
    find = chosen_key(lambda request: b"by the pool")
    assert (find(asked), find(request())) == (b"tenant-1", b"by the pool")


def test_an_answer_of_its_own_asks_no_server(site: Site) -> None:
    def refuse(seen: SeenRequest) -> Answer:
        return Answer(401, "who?", {"WWW-Authenticate": "Bearer"})

    later: list[object] = []
    with pytest.raises(OwnAnswer) as caught:
        site.engine(looking(refuse), of_pool=[looking(later.append)]).exchange(request())
    answer = caught.value
    assert (answer.status, answer.body, dict(answer.fields)[b"WWW-Authenticate"]) == (401, b"who?", b"Bearer")
    assert site.heads == later == []


@pytest.mark.parametrize("answer", ["no", Answer(99), Answer(200, fields={"X Y": "1"}), Answer(200, fields={"X": "a\nb"}),
                                    Answer(200, fields={"Content-Length": "1"}), Answer(200, None)], ids=repr)  # type: ignore[arg-type]
def test_an_answer_that_is_none_is_a_failure(site: Site, answer: Answer) -> None:
    with pytest.raises(FilterFailed):
        site.engine(looking(lambda seen: answer)).exchange(request())
    assert site.failures == 1


def test_an_answers_head_is_changed(site: Site) -> None:
    class Changes(Filter):
        def on_response(self, request: SeenRequest, response: SeenResponse) -> None:
            assert (response.status, response.server) == (200, str(site.server.address))
            response.status = 203
            response.fields.remove("Server")
            response.fields.set("X-A", "2")

    reply = site.engine(Changes).exchange(request())
    fields = dict(reply.fields)
    assert (reply.status, b"Server" in fields, fields[b"X-A"], fields[b"Content-Length"], whole(reply)) == (
        203, False, b"2", b"2", b"ok")


def test_an_exception_is_a_failure_that_names_the_filter_and_the_place(site: Site) -> None:
    def fail(seen: SeenRequest) -> None:
        raise KeyError("tenant")

    with pytest.raises(FilterFailed, match=r"filter site:Looks: on_request: KeyError: 'tenant' \(.*test_filtering.py:\d+\)"):
        site.engine(looking(fail)).exchange(request())
    assert (site.failures, site.heads, site.rig.in_flight) == (1, [], [0])


def test_an_exception_after_the_answer_gives_the_lease_back(site: Site) -> None:
    class Fails(Filter):
        def on_response(self, request: SeenRequest, response: SeenResponse) -> None:
            raise KeyError("tenant")

    with pytest.raises(FilterFailed, match="on_response: KeyError"):
        site.engine(Fails).exchange(request())
    assert (site.failures, site.rig.in_flight) == (1, [0])


def test_a_call_over_the_limit_is_told_once_and_counted(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    def wait(seen: SeenRequest) -> None:
        site.clock.advance(1.5)

    summary.flush()
    engine = site.engine(looking(wait))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            whole(engine.exchange(request()))
    assert site.late == 3
    assert [record.getMessage() for record in caplog.records].count(
        "filter site:Looks: on_request took 1.50 s; proxy.timeouts.filter is 1 s") == 1


def test_the_end_is_told_to_those_that_looked_and_an_exception_there_harms_nobody(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    ends: list[Exchange] = []

    class Ends(Filter):
        def on_request(self, request: SeenRequest) -> None:
            request.notes["begun"] = True

        def on_end(self, request: SeenRequest, exchange: Exchange) -> None:
            assert request.notes == {"begun": True}
            ends.append(exchange)
            raise KeyError("tenant")

    asked = request(source=Source())
    reply = site.engine(Ends).exchange(asked)
    body = whole(reply)
    asked.end(asked.started + 2, len(body), None, reply)
    tell_filters(asked)
    assert ends == [Exchange(200, str(site.server.address), 2.0, 0, 2, "")]
    assert site.failures == 1 and "on_end: KeyError" in caplog.text


def test_requests_without_filters_are_nobodys_business(site: Site) -> None:
    asked: Request = request()
    whole(site.engine().exchange(asked))
    tell_filters(asked)
    assert asked.filtering is None and asked.head.kept is asked.plan


def test_what_an_exception_says_of_a_request_breaks_no_line_and_fills_no_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(seen: SeenRequest) -> None:
        raise ValueError(f"no tenant\nERROR {seen.target}\x1b[2J" + "x" * 10000)

    summary.flush()
    engine = site.engine(looking(fail))
    with caplog.at_level(logging.INFO):
        for number in range(50):
            with pytest.raises(FilterFailed) as caught:
                engine.exchange(request(target=b"/%d" % number))
            tell_refusal(caught.value, "192.0.2.7", "GET /")
    line, = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert line.isprintable() and "no tenant\\u000aERROR /0\\u001b" in line and len(line) < 1000


@pytest.mark.parametrize("key", [None, 3, b"x"])
def test_a_key_that_is_no_text_is_a_failure_of_the_filter(site: Site, key: str) -> None:
    def choose(seen: SeenRequest) -> None:
        seen.key = key

    with pytest.raises(FilterFailed, match="filter site:Looks: on_request"):
        site.engine(looking(choose)).exchange(request())


def test_a_key_may_be_any_text(site: Site) -> None:
    def choose(seen: SeenRequest) -> None:
        seen.key = "\u6771\u4eac\udc80"

    whole(site.engine(looking(choose)).exchange(request()))


@pytest.mark.parametrize("told", [[(b"Remote-User", b"ann")], []])
def test_a_filter_believes_the_guards_and_not_the_client(site: Site, told: list[tuple[bytes, bytes]]) -> None:
    seen: list[list[str]] = []
    actions = Actions(guards=[lambda facts: Passed(fields=told)], request=of_requests(NO_CHANGES, ["Remote-User"]))

    def look(request: SeenRequest) -> None:
        seen.append(request.fields.all("Remote-User") + request.fields.all("Remote_User"))
        request.fields.set("X-Seen", "1")

    engine = site.engine(looking(look), actions=actions)
    whole(engine.exchange(request(fields=[(b"Remote-User", b"root"), (b"Remote_User", b"root")])))
    expected = [value.decode() for _, value in told]
    assert seen == [expected]
    assert site.heads[0].count(b"ann") == len(told) and b"root" not in site.heads[0] and b"X-Seen" in site.heads[0]
