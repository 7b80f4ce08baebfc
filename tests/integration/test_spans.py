"""`[tracing]`: the spans of real exchanges, as a collector gets them."""
from __future__ import annotations

import pytest

from tests.support import collector
from tests.support.balancer import GTHREAD, PROXY, FrontEnd, pool_text
from tests.support.client import fetch
from tests.support.collector import Collector
from tests.support.ports import refusing_address
from tests.support.rig import Rig
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(collector.missing()), reason=collector.missing())

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("front_end", [GTHREAD, PROXY], ids=str)
def test_a_collector_gets_an_exchange_and_its_attempts(rig: Rig, front_end: FrontEnd) -> None:
    with refusing_address() as closed, Collector() as told:
        origin = rig.origin(1)
        balancer = rig.balancer(
            pool_text([closed, *origin.addresses], "first")
            + f'[proxy]\ntrusted_proxies = ["127.0.0.0/8"]\n[tracing]\notlp = "{told.url}"\nsample = 0.0\nservice = "site"\n',
            front_end, workers=1)
        assert fetch(balancer.address, "/?un=traced").status == 200
        fields = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("User-Agent", "test/1")]
        assert fetch(balancer.address, "/?b=1", fields=fields).status == 200
        wait_until(lambda: len(told.spans) >= 3, lambda: f"three spans: {told.spans}\n{balancer.log()}", 20)
        own, failed, answered = sorted(told.spans, key=lambda span: (span["kind"] == "client", span["begun"]))
        asked = origin.arrivals[-1].values("traceparent")
    assert asked == [f"00-{TRACE}-{answered['id']}-01"]
    assert (own["kind"], own["name"], own["trace"], own["parent"], own["error"]) == ("server", "GET", TRACE, PARENT, None)
    attributes = own["attributes"]
    assert (attributes["url.path"], attributes["url.query"], attributes["http.response.status_code"],
            attributes["user_agent.original"], attributes["prefork_lb.pool"]) == ("/", "b=1", 200, "test/1", "web")
    assert own["resource"]["service.name"] == "site" and own["resource"]["process.pid"] in balancer.workers()
    assert {span["parent"] for span in (failed, answered)} == {own["id"]}
    assert failed["attributes"]["error.type"] == "connect" and "refused" in failed["error"]
    assert answered["error"] is None and answered["attributes"]["http.request.resend_count"] == 1
    assert answered["attributes"]["url.full"] == f"http://{origin.addresses[0]}/?b=1"
    assert own["begun"] <= failed["begun"] <= failed["ended"] <= answered["begun"] <= answered["ended"] <= own["ended"]
