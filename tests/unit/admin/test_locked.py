"""The ledger's lock is held by a process that does not run: reading goes on, and changes give up."""
from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from prefork_lb.admin import changing
from tests.support.waiting import wait_until
from tests.unit.admin.interface import Interface
from tests.unit.shared.conftest import new_signals, signals  # noqa: F401
from tests.unit.shared.processes import Signals, running

SERVER = "/api/v1/pools/web/servers/127.0.0.1:8001"


def test_one_change_waits_and_the_others_are_told(interface: Interface, signals: Signals,  # noqa: F811
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "_PATIENCE_S", 0.2)
    assert interface.ask(SERVER, "PATCH", json={"weight": 2}).status_code == 200

    def hold() -> None:
        with interface.ledger.locked():
            signals.send()
            signal.pause()

    answers: list[Any] = []

    def change() -> None:
        answers.append(interface.ask(SERVER, "PATCH", json={"weight": 3}))

    clients = [threading.Thread(target=change, daemon=True) for _ in range(2)]
    with running(hold) as (holder,):
        signals.wait()
        for client in clients:
            client.start()
        wait_until(lambda: answers, "a change is told to come again", 20)
        assert (answers[0].status_code, answers[0].headers["Retry-After"]) == (503, "5")
        interface.publisher.look()
        assert interface.ask(SERVER).json["weight"] == 2 and len(answers) == 1
        holder.kill()
        wait_until(lambda: len(answers) == 2, "the other one is made", 20)
    assert answers[1].json["weight"] == 3
