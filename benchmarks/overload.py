"""Goodput at several times the capacity: what a worker still answers in time when more comes than it can do.

Each client connects over TLS (an RSA key of 4096 bits, so that a handshake costs milliseconds), sends one request and gives
up after a second. `python -m benchmarks.overload [--lag 0]` prints answers per second at capacity and at a multiple of it.
"""
from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.balancer import PROXY, Balancer
from tests.support.behaviors import behave
from tests.support.origin import Origin

PATIENCE_S = 1.0


async def one(context: ssl.SSLContext, port: int) -> bool:
    """Whether a request on a new connection is answered with 200 while its client has patience."""
    writer = None
    try:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
    except (OSError, TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def capacity(context: ssl.SSLContext, port: int, seconds: float) -> float:
    """Answers per second when 32 clients ask, each one request after another."""
    until = time.monotonic() + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        while time.monotonic() < until:
            answered = await one(context, port)
            done += answered

    await asyncio.gather(*(client() for _ in range(32)))
    return done / seconds


async def goodput(context: ssl.SSLContext, port: int, rate: float, seconds: float) -> float:
    """Answers per second when new clients come at `rate`, whatever happens to the others."""
    tasks = []
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        while len(tasks) < elapsed * rate:
            tasks.append(asyncio.create_task(one(context, port)))
        await asyncio.sleep(0.005)
    # The first second is the overload's beginning, which nobody can know to be one yet.
    results = await asyncio.gather(*tasks)
    late = results[int(rate):]
    return sum(late) / (len(late) / rate)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=float, default=3, help="of the capacity")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--lag", type=float, default=0.5, help="proxy.limits.lag; 0: without load shedding")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:4096", "-nodes", "-keyout", str(key), "-out", str(certificate),
                        "-days", "2", "-subj", "/CN=bench"], check=True, capture_output=True)
        origin = stack.enter_context(Origin(2, behave))
        text = (f'[[listen.certificates]]\ncertificate = "{certificate}"\nkey = "{key}"\n[proxy.limits]\nlag = {options.lag}\n'
                f"[pools.web]\nservers = {origin.addresses}\n")
        balancer = stack.enter_context(Balancer(folder, text, PROXY, workers=1, secure=True))
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        port = balancer.address[1]
        most = asyncio.run(capacity(context, port, 4))
        good = asyncio.run(goodput(context, port, options.times * most, options.seconds))
        print(f"capacity {most:.0f}/s; at {options.times:g} times that: {good:.0f}/s answered in time, {good / most:.0%}")
        for line in balancer.log().splitlines():
            if "overload" in line:
                print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
