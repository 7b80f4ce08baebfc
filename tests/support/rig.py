"""Balancers and origins that a test starts, ended together in the right order."""
from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.balancer import Balancer
from tests.support.behaviors import behave
from tests.support.origin import Origin

# Every balancer that runs now, for the report of a failed test.
RUNNING: list[Balancer] = []


class Rig:
    """Starts balancers and origins; a context manager that ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._started = 0

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def balancer(self, config: str | None, *arguments: Any, **more: Any) -> Balancer:
        """Start a balancer in a folder of its own; arguments as for `Balancer`."""
        balancer = self.new_balancer(config, *arguments, **more)
        balancer.start()
        return balancer

    def new_balancer(self, config: str | None, *arguments: Any, **more: Any) -> Balancer:
        """The same, not yet started; it is stopped with the others."""
        self._started += 1
        balancer = Balancer(self.folder / f"balancer-{self._started}", config, *arguments, **more)
        RUNNING.append(balancer)
        self._stack.callback(RUNNING.remove, balancer)
        self._stack.callback(balancer.stop)
        return balancer

    def origin(self, servers: int = 4, family: str = "inet") -> Origin:
        """Start an origin of so many servers."""
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        return self._stack.enter_context(Origin(servers, behave, family, folder))
