"""What `prefork-lb top` shows, and what its keys do. It knows no terminal, so tests can look at every frame."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from prefork_lb.cli.instances import Document, Instance
from prefork_lb.cli.number import weight_of
from prefork_lb.cli.units import rate
from prefork_lb.shared.table import MOST_WEIGHT
from prefork_lb.words import count

_FRAME_LINES = 6  # beside the rows: two of the header, the heading, the reason, the message, the keys
_KEYS = "↑↓ move  d drain  r ready  m maintenance  w weight  s, S sort  / find  q quit"
_STYLES = {"up": "green", "ready": "green", "down": "bold red", "ejected": "bold red", "trial": "yellow", "checking": "yellow",
           "draining": "cyan", "maintenance": "cyan"}

_SORTS: dict[str, Callable[[Document], Any]] = {
    "order": lambda server: 0,
    "state": lambda server: (server["usable"], server["state"]),
    "in flight": lambda server: -server["in_flight"],
    "rate": lambda server: -(server["rate"] or 0),
    "errors": lambda server: -(server["codes"]["5xx"] if server["codes"] is not None else server["failures"]),
    "latency": lambda server: -(server["latency_ms"] or 0),
    "server": lambda server: server["address"],
}
"""The orders of the rows, by name: the first row is the one that asks most for attention."""


class Screen:
    """The state of the display: the last document, where the cursor is, what is being typed."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._document: Document | None = None
        self._sort, self._is_reversed = "order", False
        self._chosen: tuple[str, str] | None = None  # pool and address of the row with the cursor
        self._first = 0  # the first row that is shown
        self._page = 1
        self._typed: str | None = None  # the text so far, while a weight or a text to find is typed; None: neither is
        self._asks = ""  # the key that asked for it: "w" or "/"
        self._find = ""
        self.message = ""
        self.is_over = False

    def look(self) -> None:
        """Get the newest document. When there is none, the last one stays, with a message."""
        try:
            self._document = self._instance.document()
        except click.ClickException as exc:
            self.message = exc.format_message()

    # -- keys --------------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """A key was struck."""
        if self._typed is not None:
            self._type(key)
            return
        self.message = ""
        if key in ("up", "down", "k", "j", "page-up", "page-down"):
            step = self._page if key.startswith("page") else 1
            self._move(-step if key in ("up", "k", "page-up") else step)
        elif key in "drm":
            self._set({"d": "drain", "r": "ready", "m": "maintenance"}[key])
        elif key == "s":
            names = list(_SORTS)
            self._sort = names[(names.index(self._sort) + 1) % len(names)]
        elif key == "S":
            self._is_reversed = not self._is_reversed
        elif key in ("w", "/"):
            self._typed, self._asks = "", key
        elif key in ("q", "escape"):
            self.is_over = True

    def _type(self, key: str) -> None:
        typed = self._typed or ""
        if key == "escape":
            self._typed = None
        elif key == "enter":
            self._typed = None
            if self._asks == "w":
                self._weigh(typed)
            else:
                self._find = typed
        elif key == "backspace":
            self._typed = typed[:-1]
        elif len(key) == 1:
            self._typed = typed + key

    def _move(self, step: int) -> None:
        rows = self._rows()
        if rows:
            at = self._cursor(rows)
            server = rows[min(max(0, at + step), len(rows) - 1)]
            self._chosen = server["pool"], server["address"]

    def _set(self, state: str) -> None:
        self._change(lambda pool, address: self._instance.set_admin(pool, address, state), state)

    def _weigh(self, typed: str) -> None:
        try:
            weight = weight_of(typed)
        except ValueError as exc:
            self.message = str(exc)
            return
        self._change(lambda pool, address: self._instance.set_weight(pool, address, weight), f"weight {typed}")

    def _change(self, change: Callable[[str, str], None], words: str) -> None:
        """Change the server with the cursor."""
        rows = self._rows()
        if not rows:
            return
        server = rows[self._cursor(rows)]
        # The cursor stays on this server: the next frame may have the rows in another order.
        self._chosen = pool, address = server["pool"], server["address"]
        try:
            change(pool, address)
            self.message = f"{address} (pool {pool}): {words}"
        except click.ClickException as exc:
            self.message = exc.format_message()
        self.look()

    # -- what is shown -----------------------------------------------------------------------------------------------------

    def _rows(self) -> list[Document]:
        """The servers that are shown, in their order."""
        pools = self._document["pools"] if self._document is not None else []
        servers = [server for pool in pools for server in pool["servers"]]
        found = [server for server in servers if self._find in f"{server['pool']} {server['address']} {server['state']}"]
        return sorted(found, key=_SORTS[self._sort])[::-1 if self._is_reversed else 1]

    def _cursor(self, rows: list[Document]) -> int:
        """The row that has the cursor; the first one when its server is not shown any more."""
        return next((at for at, server in enumerate(rows) if (server["pool"], server["address"]) == self._chosen), 0)

    def frame(self, height: int) -> RenderableType:
        """The display, for a terminal of so many lines."""
        if self._document is None:
            return Text(self.message)
        rows = self._rows()
        cursor = self._cursor(rows)
        self._page = max(1, height - _FRAME_LINES)
        self._first = min(max(self._first, cursor - self._page + 1), cursor, max(0, len(rows) - self._page))
        shown = rows[self._first:self._first + self._page]
        table = self._table(shown, cursor - self._first)
        reason = f"{rows[cursor]['address']}: {rows[cursor]['reason']}" if rows and rows[cursor]["reason"] else ""
        return Group(*_header(self._document), table, _line(reason), self._bottom(len(rows)), _line(_KEYS, "dim"))

    def _table(self, rows: list[Document], cursor: int) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, header_style="bold")
        for heading in ("pool", "server", "state"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio={"pool": 2, "server": 5, "state": 4}[heading])
        for heading in ("wt", "in flight", "rate", "5xx", "latency"):
            table.add_column(heading, no_wrap=True, justify="right")
        for at, server in enumerate(rows):
            limit = f"/{server['max_connections']}" if server["max_connections"] else ""
            latency = server["latency_ms"]
            reason = f": {server['reason']}" if server["reason"] else ""
            table.add_row(
                Text(server["pool"]), Text(server["address"] + (" (backup)" if server["backup"] else "")),
                Text(server["state"] + reason, style=_STYLES.get(server["state"], "")), str(server["weight"]),
                f"{server['in_flight']}{limit}", rate(server["rate"]),
                str(server["codes"]["5xx"]) if server["codes"] is not None else "-",
                f"{latency:.1f} ms" if latency is not None else "-", style="reverse" if at == cursor else "")
        return table

    def _bottom(self, found: int) -> Text:
        if self._typed is not None:
            return _line(f'{f"weight (1 to {MOST_WEIGHT}, or default)" if self._asks == "w" else "find"}: {self._typed}▏')
        order = f"by {self._sort}{', reversed' if self._is_reversed else ''}"
        return _line(self.message or f"{count(found, 'server')} {order}" + (f', with "{self._find}"' if self._find else ""))


def _header(document: Document) -> tuple[Text, Text]:
    """Two lines on the whole instance."""
    totals, serving = document["totals"], [worker for worker in document["workers"] if not worker["lingers_s"]]
    first = (f"prefork-lb  master {document['master']}  {count(len(serving), 'worker')}  generation {document['generation']}"
             + ("" if document["controller"] else "  no controller is at work"))
    parts = [f"requests {rate(totals['rate'])}", f"errors {rate(totals['error_rate'])}"]
    if totals["p50_ms"] is not None:
        parts.append(f"p50 {totals['p50_ms']:.0f}  p99 {totals['p99_ms']:.0f} ms")
    parts += [f"{totals['in_flight']} in flight", f"{totals['waiting']} waiting"]
    if totals["clients"] is not None:
        parts.append(count(totals["clients"], "client"))
    return _line(first, "bold"), _line("  ".join(parts))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
