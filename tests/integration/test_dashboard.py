"""The dashboard of a real instance in a real browser."""
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import browser
from tests.support.admin import Admin
from tests.support.balancer import PROXY, pool_text
from tests.support.browser import Browser
from tests.support.client import fetch
from tests.support.place import HOST
from tests.support.ports import free_port
from tests.support.rig import Rig
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())

PAGE_BYTES = 200_000
FIRST_ROW = ".server:first-child"
# All that the page loads but for the API's answers, as it travels.
BYTES = """return performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
  .filter((entry) => !entry.name.includes("/api/")).reduce((sum, entry) => sum + entry.transferSize, 0)"""


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def test_the_page_shows_servers_and_numbers_that_move_and_drains_one_and_undoes_it(rig: Rig, window: Browser) -> None:
    bind = f"{HOST}:{free_port()}"
    origin = rig.origin(3)
    balancer = rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "{bind}"\n', PROXY, workers=2)
    admin = Admin(bind)
    admin.wait()
    window.open(f"http://{bind}/")
    window.wait_for("#verdict", "All 3 servers are well.")
    window.wait_for("#link", "live")
    addresses = [server["address"] for server in admin.instance()["pools"][0]["servers"]]
    assert window.texts(".address") == addresses

    def numbers_move() -> bool:
        fetch(balancer.address)
        return all(rate not in ("0", "–") for rate in window.texts(".server .rate .n"))

    wait_until(numbers_move, lambda: f"requests a second: {window.texts('.server .rate .n')}", browser.SEEN_S)

    window.press("j", "d")
    window.wait_for("#ask h2", f"Drain: {addresses[0]}")
    window.press("Enter")
    window.wait_for(f"{FIRST_ROW} .reason", "draining")
    window.wait_for("#verdict", "2 servers are well, 1 set aside.")
    assert admin.instance()["pools"][0]["servers"][0]["admin"] == "drain"
    window.press("u")
    window.wait_for("#verdict", "All 3 servers are well.")
    assert admin.instance()["pools"][0]["servers"][0]["admin"] == "ready"

    assert 20_000 < window.run(BYTES) < PAGE_BYTES
    assert window.complaints() == []


def test_a_server_is_weighed_added_and_removed_on_the_page(rig: Rig, window: Browser) -> None:
    bind = f"{HOST}:{free_port()}"
    first, second, added = rig.origin(3).addresses
    rig.balancer(pool_text([first, second]) + f'[admin]\nbind = "{bind}"\n', PROXY, workers=1)
    admin = Admin(bind)
    admin.wait()

    def weights() -> dict[str, int]:
        return {server["address"]: server["weight"] for server in admin.instance()["pools"][0]["servers"]}

    def answered() -> None:
        wait_until(lambda: not window.run('return document.getElementById("ask").open'), "the dialog has closed", browser.SEEN_S)

    window.open(f"http://{bind}/")
    window.wait_for("#verdict", "All 2 servers are well.")
    window.press("j", "w")
    window.wait_for("#ask h2", f"Weight: {first}")
    window.fill("weight", "3")
    window.press("Enter")
    answered()
    window.wait_for(f"{FIRST_ROW} .weight .n", "3*")
    wait_until(lambda: weights() == {first: 3, second: 1}, lambda: f"its weight: {weights()}", browser.SEEN_S)
    window.run('document.querySelector("button.add").click()')
    window.wait_for("#ask h2", "Add a server to web")
    window.fill("address", added)
    window.press("Enter")
    answered()
    window.wait_for("#verdict", "All 3 servers are well.")
    wait_until(lambda: added in weights(), lambda: f"a third server: {weights()}", browser.SEEN_S)

    window.run("document.querySelector(arguments[0]).focus()", ".server:last-child")
    window.press("x")
    window.wait_for("#ask h2", f"Remove: {added}")
    window.run('document.querySelector("#ask button[type=submit]").click()')
    window.wait_for("#verdict", "All 2 servers are well.")
    wait_until(lambda: weights() == {first: 3, second: 1}, lambda: f"it is removed: {weights()}", browser.SEEN_S)
    assert window.complaints() == []


def test_the_weights_of_a_split_are_set_on_the_page(rig: Rig, window: Browser) -> None:
    bind = f"{HOST}:{free_port()}"
    web, canary = rig.origin(2).addresses
    pools = pool_text([web]) + pool_text([canary], name="canary")
    split = "[[routes]]\nsplit = { web = 95, canary = 5 }\n"
    rig.balancer(f'{pools}{split}[admin]\nbind = "{bind}"\n', PROXY, workers=1)
    admin = Admin(bind)
    admin.wait()

    def weights() -> dict[str, int]:
        found: dict[str, int] = admin.instance()["splits"][0]["weights"]
        return found

    window.open(f"http://{bind}/")
    window.wait_for("#split-list .figures", "web 95 · canary 5")
    window.run('document.querySelector("#split-list button").click()')
    window.wait_for("#ask h2", "Weights of route 1")
    window.fill("canary", "20")
    window.press("Enter")
    window.wait_for("#split-list .figures", "web 95 · canary 20*")
    assert weights() == {"web": 95, "canary": 20}
    window.wait_for("#toasts", "web 95, canary 20")
    window.run('document.querySelector("#toasts [data-undo]").click()')
    window.wait_for("#split-list .figures", "web 95 · canary 5")
    assert weights() == {"web": 95, "canary": 5} and window.complaints() == []


def test_the_page_finds_its_way_back_when_the_interface_was_away(rig: Rig, window: Browser) -> None:
    bind = f"{HOST}:{free_port()}"
    origin = rig.origin(2)
    balancer = rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "{bind}"\n', PROXY, workers=1)
    Admin(bind).wait()
    window.open(f"http://{bind}/")
    window.wait_for("#link", "live")
    balancer.stop()
    window.wait_for("#link", "reconnecting")
    balancer.start()
    Admin(bind).wait()
    window.wait_for("#link", "live")
    window.wait_for("#verdict", "All 2 servers are well.")


def test_a_reader_signs_in_and_sees_no_actions(rig: Rig, window: Browser) -> None:
    bind = f"{HOST}:{free_port()}"
    origin = rig.origin(2)
    tokens = rig.folder / "tokens"
    tokens.write_text("reader only-to-look-and-read\noperator may-do-everything-here\n")
    tokens.chmod(0o600)
    rig.balancer(pool_text(origin.addresses) + f'[admin]\nbind = "{bind}"\ntoken_file = "{tokens}"\n', PROXY, workers=1)
    Admin(bind).wait()
    window.open(f"http://{bind}/")
    window.wait_for("#door-title", "Sign in")
    wait_until(lambda: window.run("return document.activeElement.id") == "token", "the form has the focus", browser.SEEN_S)
    assert not any(bind in line for line in window.complaints())
    window.press(*"wrong", "Enter")
    window.wait_for("#door .wrong", "there is no such token")
    window.run('document.getElementById("token").value = ""')
    window.press(*"only-to-look-and-read", "Enter")
    window.wait_for("#link", "live, read only")
    window.wait_for(".address", origin.addresses[0])
    assert window.run('return [...document.querySelectorAll("[data-change]")].every((each) => each.checkVisibility() === false)')
