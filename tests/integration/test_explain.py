"""`prefork-lb explain` beside a running balancer: what it foretells is what the next request gets."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from prefork_lb.cli.main import main
from tests.support.balancer import FRONT_ENDS, Balancer, pool_text
from tests.support.client import fetch
from tests.support.rig import Rig


def explain(balancer: Balancer, host: str, target: str, *more: str) -> dict[str, Any]:
    words = ["explain", "GET", f"http://{host}{target}", "--json", "--master", str(balancer.master), *more]
    done = CliRunner().invoke(main, words)  # in this process: it is asked 25 times
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_foretold_is_what_the_next_request_gets(tmp_path: Path) -> None:
    with Rig(tmp_path) as rig:
        origin = rig.origin(3)
        front_end = next(each for each in FRONT_ENDS if "Proxy" in str(each))
        names = ("turns", "load", "keyed", "sticky")
        text = pool_text(origin.addresses, "round-robin", "turns") + pool_text(origin.addresses, "least-connections", "load")
        text += pool_text(origin.addresses, "consistent-hash", "keyed", 'key = "uri"')
        text += pool_text(origin.addresses, "round-robin", "sticky", "[pools.sticky.sticky]")
        text += "".join(f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n' for name in names)
        balancer = rig.balancer(text, front_end, workers=2)

        def get(name: str, target: str, *fields: tuple[str, str]) -> tuple[str, str]:
            start = len(origin.arrivals)
            response = fetch(balancer.address, target, fields=[("Host", f"{name}.example"), *fields])
            assert response.status == 200
            return origin.addresses[origin.order(start)[0]], (response.value("Set-Cookie") or "").partition(";")[0]

        for name in names:
            for number in range(3):
                foretold, again = (explain(balancer, f"{name}.example", f"/?{number}") for _ in range(2))
                assert foretold["server"] == again["server"], "explaining had an effect"
                assert get(name, f"/?{number}")[0] == foretold["server"], (name, number)
        server, cookie = get("sticky", "/")
        found = explain(balancer, "sticky.example", "/", "-H", f"Cookie: {cookie}")
        assert (found["server"], found["session"]) == (server, f"of {server}")
        assert [each["why"] for each in found["servers"] if each["is_picked"]] == ["the session belongs to it"]
