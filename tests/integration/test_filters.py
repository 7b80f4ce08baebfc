"""A site's own filters over real workers: what they may do, and that nothing is lost when they raise, wait and leak."""
from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.balancer import FRONT_ENDS, PROXY, Balancer, FrontEnd, StartFailed, pool_text
from tests.support.client import fetch
from tests.support.origin import Origin
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SITE = """
import socket
from prefork_lb.filters import Answer, Filter

class Changes(Filter):
    def __init__(self, setup):
        self.pool, self.url, self.http, self.memory = setup.text("pool"), setup.text("url"), setup.http, setup.memory
    def on_request(self, request):
        if request.path == "/answer":
            return Answer(451, "not here", {"X-By": "filter"})
        if request.path == "/ended":
            return Answer(200, str(self.memory[451]))
        if request.fields.get("X-Pool"):
            request.pool = self.pool
        if request.path == "/ask":
            request.fields.set("X-Asked", str(len(self.http.get(self.url, timeout_s=30).body)))
            request.target = "/echo"
        request.fields.set("X-Client", request.client)
    def on_response(self, request, response):
        response.fields.set("X-Changed", request.fields.get("X-Client"))
        if request.fields.get("X-Asked"):
            response.fields.remove("X-Served-By")
    def on_end(self, request, exchange):
        self.memory.add(exchange.status)

class Raises(Filter):
    def on_request(self, request):
        if request.path == "/raise-before":
            raise RuntimeError("tenant store is down")
    def on_response(self, request, response):
        if request.path == "/bytes":
            raise LookupError("no such header")

class Waits(Filter):
    def __init__(self, setup):
        self.http, self.url = setup.http, setup.text("url")
    def on_request(self, request):
        if request.path == "/wait":
            self.http.get(self.url, timeout_s=30)

class Leaks(Filter):
    kept = []
    def on_request(self, request):
        self.kept.append((request, socket.socket() if len(self.kept) < 50 else None))

class Counts(Filter):
    def __init__(self, setup):
        self.memory = setup.memory
    def on_request(self, request):
        return Answer(200, str(self.memory.add(7)))
"""


def started(rig: Rig, front_end: FrontEnd) -> tuple[Balancer, Origin]:
    (rig.folder / "site_filters.py").write_text(SITE)
    origin = rig.origin(2)
    web, other = origin.addresses
    text = pool_text([web], more='filters = ["site_filters:Leaks"]') + pool_text([other], name="other") + f"""
[[routes]]
pool = "web"
filters = [{{ use = "site_filters:Changes", pool = "other", url = "http://{web}/bytes?n=3" }}]
[[routes]]
paths = ["/raise-before", "/bytes", "/wait"]
pool = "web"
filters = ["site_filters:Raises", {{ use = "site_filters:Waits", url = "http://{web}/sleep?seconds=0.05" }}]
[[routes]]
paths = ["/count"]
pool = "web"
filters = ["site_filters:Counts"]
"""
    return rig.balancer(text, front_end, workers=2, environ={"PYTHONPATH": str(rig.folder)}), origin


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=str)
def test_filters_change_choose_ask_and_answer_and_lose_nothing(rig: Rig, front_end: FrontEnd) -> None:
    balancer, origin = started(rig, front_end)
    address, workers = balancer.address, balancer.workers()
    answer = fetch(address, "/answer")
    assert (answer.status, answer.body, answer.value("X-By")) == (451, b"not here", "filter")
    assert [fetch(address, "/echo", fields=fields).served_by for fields in ([], [("X-Pool", "1")])] == ["origin-0", "origin-1"]
    asked = fetch(address, "/ask", fields=[("Connection", "X-Client"), ("X_Client", "admin"), ("X-Client", "admin")])
    assert (asked.value("X-Changed"), asked.value("X-Served-By")) == ("127.0.0.1", None)
    arrival = origin.arrivals[-1]
    wait_until(lambda: fetch(address, "/ended").body == b"1", "the filter has heard of the end of the first exchange")
    assert [arrival.values(name) for name in ("X-Client", "X_Client", "X-Asked")] == [["127.0.0.1"], [], ["3"]]

    # Under load: each of eight clients meets each filter in turn.
    targets = [("/raise-before", 500), ("/bytes?n=1", 500), ("/wait", 404), ("/echo", 200)]

    def client(number: int) -> list[tuple[int, int]]:
        found = []
        for target, expected in itertools.islice(itertools.cycle(targets), number % 4, number % 4 + 12):
            found.append((expected, fetch(address, target).status))
        return found

    with ThreadPoolExecutor(8) as clients:
        answers = list(itertools.chain.from_iterable(clients.map(client, range(8))))
    assert [got for _, got in answers] == [expected for expected, _ in answers]
    balancer.wait_until_idle(20)
    assert balancer.workers() == workers
    log = balancer.log()
    assert "filter site_filters:Raises: on_request: RuntimeError: tenant store is down" in log
    assert "filter site_filters:Raises: on_response: LookupError: no such header" in log
    assert "Traceback" not in log

    counts = sorted(int(fetch(address, "/count").body) for _ in range(8))
    assert counts == list(range(1, 9))


def test_a_filter_that_cannot_be_had_stops_a_start_and_no_reload(rig: Rig) -> None:
    balancer, _ = started(rig, PROXY)
    good = balancer.config_file.read_text()
    bad = good.replace("site_filters:Changes", "site_filters:None")
    problem = "routes[0].filters[0]: filter 'site_filters:None': site_filters has no class None"
    balancer.config_file.write_text(bad)
    balancer.reload()
    wait_until(lambda: problem in balancer.log(), balancer.log, 20)
    assert fetch(balancer.address, "/answer").status == 451
    balancer.wait_until_idle()
    with pytest.raises(StartFailed) as failed:
        rig.balancer(bad, PROXY, workers=1, environ={"PYTHONPATH": str(rig.folder)})
    assert problem in failed.value.log
