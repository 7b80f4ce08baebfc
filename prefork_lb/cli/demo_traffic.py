"""The demo's own visitors: `python -m prefork_lb.cli.demo_traffic PORT`, requests to 127.0.0.1:PORT until standard input ends.

Some find what they ask for, some are sent elsewhere, few meet an error: so that a dashboard has something of everything.
"""
from __future__ import annotations

import contextlib
import http.client
import math
import random
import sys
import threading
import time

VISITORS = 48
PAUSE_S = 0.18  # of a visitor between two requests, on average
WAVE_S, SWING = 80.0, 0.35  # how the pause swings over time
TIMEOUT_S = 10.0
# A POST is not sent again when a server fails: it is these that get a 502.
REQUESTS = ("GET /", "GET /shop", "GET /shop/cart", "POST /shop/cart", "GET /moved", "GET /missing", "GET /broken",
            "GET /api/items", "GET /api/prices", "GET /api/missing")
WEIGHTS = (40, 20, 15, 10, 5, 3, 0.4, 40, 15, 3)


def visit(port: int) -> None:
    """One visitor, for ever, on one kept-alive connection for as long as it lasts."""
    chance = random.Random()
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            while True:
                method, path = chance.choices(REQUESTS, WEIGHTS)[0].split()
                connection.request(method, path)
                connection.getresponse().read()
                swing = 1 + SWING * math.sin(2 * math.pi * time.monotonic() / WAVE_S)
                time.sleep(chance.expovariate(1 / (PAUSE_S * swing)))
        time.sleep(PAUSE_S)


def main(port: str) -> None:
    """Send requests until standard input ends."""
    for _ in range(VISITORS):
        threading.Thread(target=visit, args=(int(port),), daemon=True).start()
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
