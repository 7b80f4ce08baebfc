"""A filter: clients that ask too fast have to show that they are browsers.

    [[routes]]
    hosts = ["www.example.org"]
    pool = "web"
    filters = [{ use = "bot_guard:BotGuard", secret_file = "/etc/site/guard.secret", per_second = 5, burst = 50 }]

Above the rate a client gets 429 with a page. Its script searches a number (a proof of work of a fraction of a second), puts it
into a cookie and comes again. The cookie is good for this address for an hour. Programs without a browser keep to the rate.
"""
from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from pathlib import Path

from prefork_lb.filters import Answer, Filter, Request, Setup

_COOKIE = "guard"
_CELLS = 1024
_BITS = 16  # of the proof: 65,536 tries on average
_VALID_S = 3600

_PAGE = """<!doctype html><meta charset="utf-8"><title>One moment</title><p>One moment, please.</p><script>
(async () => {
  const task = "TASK", bits = BITS;
  for (let n = 0; ; n++) {
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(task + "." + n)));
    if ((hash[0] << 8 | hash[1]) >> (16 - bits) === 0) {
      document.cookie = "COOKIE=" + task + "." + n + "; path=/; max-age=3600; secure; samesite=lax";
      return location.reload();
    }
  }
})()</script>
"""


class BotGuard(Filter):
    """A rate for each client, in 1,024 integers of all workers. A client that is above it, or shares an integer with one that is,
    is asked for a proof and not turned away."""

    def __init__(self, setup: Setup) -> None:
        self._secret = Path(setup.text("secret_file")).read_bytes()
        self._interval_us = int(1e6 / setup.number("per_second", 5))
        self._ahead_us = int(setup.number("burst", 50)) * self._interval_us
        self._memory, self._clock = setup.memory, setup.clock
        self._now = time.time  # of the cookie, which outlives the machine

    def on_request(self, request: Request) -> Answer | None:
        client = _network(request.client)
        if self._is_proven(client, request.cookie(_COOKIE)) or self._is_slow(client):
            return None
        page = _PAGE.replace("TASK", self._task(client, int(self._now()) + _VALID_S)).replace("BITS", str(_BITS))
        return Answer(429, page.replace("COOKIE", _COOKIE), {
            "Content-Type": "text/html; charset=utf-8", "Retry-After": "1", "Cache-Control": "no-store"})

    def _is_slow(self, client: str) -> bool:
        """Count a request (GCRA): the integer is the instant up to which the client has used its rate."""
        index = int.from_bytes(hashlib.blake2b(client.encode(), key=self._secret[:64], digest_size=4).digest()) % _CELLS
        now = int(self._clock() * 1e6)
        used = self._memory.change(index, lambda until: min(max(until, now), now + self._ahead_us) + self._interval_us)
        return used - now <= self._ahead_us

    def _is_proven(self, client: str, cookie: str) -> bool:
        task, _, number = cookie.rpartition(".")
        until = task.partition(".")[0]
        if len(cookie) > 200 or not (until.isascii() and until.isdigit() and self._now() < int(until) <= self._now() + _VALID_S):
            return False
        if not hmac.compare_digest(task.encode("latin-1"), self._task(client, int(until)).encode()):
            return False
        return int.from_bytes(hashlib.sha256(f"{task}.{number}".encode("latin-1")).digest()[:2]) >> (16 - _BITS) == 0

    def _task(self, client: str, until: int) -> str:
        """What only this client can solve, and not for longer than until then."""
        return f"{until}.{hmac.digest(self._secret, f'{until} {client}'.encode(), 'sha256').hex()[:32]}"


def _network(client: str) -> str:
    """The client; of IPv6 its /64, in which one host can take any address."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return client if address.version == 4 else str(ipaddress.ip_network(f"{address}/64", strict=False))
