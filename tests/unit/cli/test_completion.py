"""What a shell completes."""
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.shell_completion import ShellComplete

from prefork_lb.cli import running
from prefork_lb.cli.main import main
from prefork_lb.shared.finding import visible_segments
from prefork_lb.shared.ledger import Ledger
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.table import PoolEntry, ServerEntry, register
from tests.unit.cli.interfaces import served

WEB, API, BOTH = "10.0.0.1:80", "unix:/run/api.sock", "10.0.0.2:80"


@pytest.fixture(autouse=True)
def instance(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> Segment:
    monkeypatch.setattr(running, "visible_segments",
                        lambda: (found for found in visible_segments() if found.name == segment.name))
    entries = {"web": (WEB, BOTH), "api": (API, BOTH)}
    register(segment, Ledger(segment), [PoolEntry(pool, [ServerEntry(address, 1, 0, False) for address in addresses])
                                        for pool, addresses in entries.items()])
    return segment


def completed(*words: str) -> list[str]:
    """What is offered for the last word."""
    shell = ShellComplete(main, {}, "prefork-lb", "_PREFORK_LB_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize("command", ["drain", "ready", "maintenance", "weight", "limit", "remove"])
def test_servers_of_the_running_instance_are_offered(command: str) -> None:
    assert completed(command, "") == [WEB, BOTH, API] and completed(command, "10.0.0.2") == [BOTH]
    assert completed(command, "--pool", "api", "") == [BOTH, API] or completed(command, "--pool", "api", "") == [API, BOTH]
    assert completed(command, "none") == []


def test_pools_and_commands_are_offered() -> None:
    assert completed("drain", WEB, "--pool", "") == ["web", "api"] and completed("add", "--pool", "a") == ["api"]
    assert completed("re") == ["ready", "reload", "remove"] and completed("config", "") == ["diff"]


def test_those_of_an_instance_elsewhere_too(segment: Segment) -> None:
    with served(segment) as (url, _):
        assert "https://127.0.0.1:8003" in completed("drain", "--url", url, "")


def test_without_an_instance_nothing_is_offered_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> Iterator[Segment]:
        raise SegmentError("it belongs to another user")
        yield

    monkeypatch.setattr(running, "visible_segments", forbidden)
    assert completed("drain", "") == [] and completed("drain", "--url", "http://127.0.0.1:1", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    done = subprocess.run([sys.executable, "-m", "prefork_lb"], env=os.environ | {"_PREFORK_LB_COMPLETE": f"{shell}_source"},
                          capture_output=True, text=True, check=False, timeout=60)
    if "Couldn't detect Bash version" not in done.stderr:
        assert done.returncode == 0 and "_PREFORK_LB_COMPLETE=" in done.stdout
