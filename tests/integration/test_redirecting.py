"""A pool that redirects: the tutorial's scene, with three real `python -m http.server`s, on every worker class."""
from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support.balancer import Balancer, FrontEnd
from tests.support.client import Connection, Response, Truncated, fetch
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until

SERVERS, CLIENTS, EACH = 3, 6, 15
STATUSES = {"moved": 301, "found": 302, "temporary": 307, "permanent": 308}


class Scene(NamedTuple):
    balancer: Balancer
    addresses: list[str]


@contextlib.contextmanager
def http_servers(folder: Path) -> Iterator[list[str]]:
    """Three real servers; each has a file `name` that says which one it is."""
    with contextlib.ExitStack() as stack:
        addresses = []
        for number in range(SERVERS):
            files = folder / f"server-{number}"
            files.mkdir()
            port = free_port()
            (files / "name").write_text(f"{HOST}:{port}")
            server = subprocess.Popen([sys.executable, "-m", "http.server", "--bind", HOST, str(port)], cwd=files,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
            addresses.append(f"{HOST}:{port}")
        for address in addresses:
            wait_until(lambda where=address: _answers(where), f"{address} answers")
        yield addresses


def _answers(address: str) -> bool:
    try:
        return get(address, "/name").status == 200
    except (OSError, Truncated):
        return False


def get(address: str, target: str) -> Response:
    host, _, port = address.rpartition(":")
    return fetch((host, int(port)), target)


def pool(name: str, addresses: list[str], more: str) -> str:
    servers = "".join(f'  {{ address = "{address}", public = "http://{address}" }},\n' for address in addresses)
    route = f'[[routes]]\nhosts = ["{name}.example"]\npool = "{name}"\n'
    return f'[pools.{name}]\nmode = "redirect"\n{more}\nservers = [\n{servers}]\n{route}'


@pytest.fixture(scope="module")
def scene(front_end: FrontEnd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("redirecting")
    with http_servers(folder) as addresses, Rig(folder) as rig:
        # In strict turns, so that the spread is exact; least connections skips a turn while a redirect is under way.
        text = "".join(pool(name, addresses, f'policy = "round-robin"\nredirect_status = {status}')
                       for name, status in STATUSES.items())
        text += pool("sticky", addresses, "sticky = {}")
        text += pool("keyed", addresses, 'policy = "consistent-hash"\nkey = "path"')
        yield Scene(rig.balancer(text, front_end, workers=2), addresses)


def ask(scene: Scene, name: str, target: str = "/name", **more: object) -> Response:
    return fetch(scene.balancer.address, target, fields=[("Host", f"{name}.example")], **more)  # type: ignore[arg-type]


def test_several_clients_at_once_are_spread_evenly_over_three_servers_and_find_their_file(scene: Scene) -> None:
    found: list[str] = []
    problems: list[str] = []

    def client() -> None:
        try:
            for _ in range(EACH):
                answer = ask(scene, "moved")
                assert answer.status == 301, answer
                place = urlsplit(answer.value("Location") or "")
                file = get(place.netloc, place.path)
                assert file.status == 200 and file.body.decode() == place.netloc
                found.append(place.netloc)
        except Exception as exc:  # shown by the assertion below
            problems.append(repr(exc))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not problems
    assert Counter(found) == dict.fromkeys(scene.addresses, CLIENTS * EACH // SERVERS)
    status = scene.balancer.wait_until_idle()
    counted = [entry["requests"] for entry in status.instance["servers"] if entry["pool"] == "moved"]
    assert counted == [CLIENTS * EACH // SERVERS] * SERVERS


@pytest.mark.parametrize("name", STATUSES)
def test_path_and_query_go_along_as_they_are_and_caches_are_told_what_they_may_keep(scene: Scene, name: str) -> None:
    target = "//a/../b%2F%0d%0aX:%20y;c?d=e&f=http://g/?h#".rstrip("#")
    answer = ask(scene, name, target)
    assert answer.status == STATUSES[name]
    location = answer.value("Location")
    assert location in [f"http://{address}{target}" for address in scene.addresses]
    kept = answer.value("Cache-Control")
    assert kept == ("no-store" if STATUSES[name] in (302, 307) else "private, max-age=60")
    assert answer.value("X") is None and answer.value("Via") is None and answer.value("Date")
    assert answer.body.decode().splitlines()[1] == location


def test_head_has_the_length_and_no_body(scene: Scene) -> None:
    answer = ask(scene, "found", method="HEAD")
    assert (answer.status, answer.body) == (302, b"") and int(answer.value("Content-Length") or 0) > 20


@pytest.mark.parametrize("size", [5, 9000, 300_000])
def test_a_request_with_a_body_is_redirected_and_its_client_reads_the_answer(scene: Scene, size: int) -> None:
    answer = ask(scene, "temporary", method="POST", body=b"x" * size)
    assert answer.status == 307 and answer.value("Location")


def test_options_for_the_balancer_itself_are_answered_by_it(scene: Scene) -> None:
    answer = ask(scene, "found", "*", method="OPTIONS")
    assert answer.status == 204 and answer.value("Location") is None and "GET" in (answer.value("Allow") or "")


def test_a_connection_goes_on_after_a_redirect(scene: Scene) -> None:
    with Connection(scene.balancer.address) as connection:
        first = connection.request("/1", fields=[("Host", "found.example")])
        if (first.value("Connection") or "").lower() != "close":  # sync ends it
            assert connection.request("/2", fields=[("Host", "found.example")]).status == 302


def test_a_visitor_is_sent_to_the_same_server_by_its_cookie_and_a_path_by_its_key(scene: Scene) -> None:
    first = ask(scene, "sticky")
    cookie = (first.value("Set-Cookie") or "").partition(";")[0]
    assert cookie
    again = {fetch(scene.balancer.address, "/x", fields=[("Host", "sticky.example"), ("Cookie", cookie)]).value("Location")
             for _ in range(4)}
    assert again == {(first.value("Location") or "").replace("/name", "/x")}
    assert len({ask(scene, "keyed", "/one").value("Location") for _ in range(4)}) == 1
    places = {urlsplit(ask(scene, "keyed", f"/{number}").value("Location") or "").netloc for number in range(20)}
    assert len(places) > 1


def test_a_drained_server_gets_nobody(scene: Scene) -> None:
    gone = scene.addresses[0]
    for command in ("drain", "ready"):
        subprocess.run([sys.executable, "-m", "prefork_lb", command, gone, "--pool", "permanent",
                        "--master", str(scene.balancer.master)], check=True, capture_output=True, timeout=60)
        places = {urlsplit(ask(scene, "permanent").value("Location") or "").netloc for _ in range(6)}
        assert places == set(scene.addresses) - ({gone} if command == "drain" else set())
