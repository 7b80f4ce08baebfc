"""What a mirror costs the requests that are copied: the time of an answer with a good, a dead and a silent mirror, beside none.

    python benchmarks/mirror.py [--requests 4000]

One ProxyWorker has a route for each kind of mirror. Clients ask the routes in turns, in another order each time, so whatever else
the machine does falls on all alike. It takes nginx-light.
"""
from __future__ import annotations

import argparse
import contextlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))  # run as a file, only benchmarks/ is on the path

from benchmarks.contenders import origins  # noqa: E402
from tests.support.balancer import PROXY, Balancer, pool_text  # noqa: E402
from tests.support.client import Connection  # noqa: E402
from tests.support.ports import free_port  # noqa: E402

KINDS = "none", "good", "dead", "silent"
CLIENTS = 4
PAUSE_S = 0.001


def config(web: str, good: str, dead: str, silent: str) -> str:
    pools = {"web": web, "good": good, "dead": dead, "silent": silent}
    text = "".join(pool_text([address], name=name) for name, address in pools.items())
    for kind in KINDS:
        mirror = f'mirror = {{ pool = "{kind}" }}\n' if kind != "none" else ""
        text += f'[[routes]]\npaths = ["/{kind}"]\npool = "web"\n{mirror}'
    return text


def ask(address: tuple[str, int], rounds: int, seed: int, found: dict[str, list[float]]) -> None:
    """Ask each route so many times, and note the seconds of the answers."""
    rng = random.Random(seed)
    with Connection(address) as client:
        for number in range(rounds + 50):
            for kind in rng.sample(KINDS, len(KINDS)):
                begun = time.perf_counter()
                client.request(f"/{kind}")
                if number >= 50:  # the first ones open connections
                    found[kind].append(time.perf_counter() - begun)
                time.sleep(PAUSE_S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=4000, help="of each route")
    options = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mirror-")))
        folder.chmod(0o755)
        ports = stack.enter_context(origins(folder / "origins"))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))  # connects, and answers nothing
        addresses = [f"127.0.0.1:{port}" for port in (ports[0], ports[1], free_port(), silent.getsockname()[1])]
        balancer = stack.enter_context(Balancer(folder / "balancer", config(*addresses), PROXY, workers=1))
        threads = [threading.Thread(target=ask, args=(balancer.address, options.requests // CLIENTS, seed, found))
                   for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    usual = statistics.quantiles(found["none"], n=100)
    print("mirror   median ms      p99 ms   beside none")
    for kind, seconds in found.items():
        cuts = statistics.quantiles(seconds, n=100)
        print(f"{kind:8} {cuts[49] * 1000:9.3f} {cuts[98] * 1000:11.3f}   {cuts[49] / usual[49]:.3f}, {cuts[98] / usual[98]:.3f}")


if __name__ == "__main__":
    main()
