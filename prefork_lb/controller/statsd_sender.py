"""Sends metrics to StatsD in a thread: the look-up of the receiver's name may hang."""
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from prefork_lb.config.metrics import MetricsConfig
from prefork_lb.controller.duties import Duties
from prefork_lb.shared.segment import Segment

# What goes by Ethernet in one piece; StatsD's own advice.
_DATAGRAM_BYTES = 1432
# A receiver's buffer has room for some hundred datagrams, and 500 servers are as many.
_AT_ONCE, _PAUSE_S = 16, 0.002
_END_S = 1.0


class StatsDSender:
    """Has a thread while the configuration in force names a receiver."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._settings = MetricsConfig()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def use(self, settings: MetricsConfig) -> None:
        """Send as these settings say from now on."""
        if settings == self._settings:
            return
        self.close()
        self._settings = settings
        if settings.statsd:
            # Imported where metrics are sent: the table of all metrics is memory of the controller.
            from prefork_lb.observe.statsd import StatsD
            from prefork_lb.shared.view import view

            statsd = StatsD(settings.prefix)
            self._stop = threading.Event()
            arguments = (lambda: statsd.lines(view(self._segment))), settings, self._stop
            self._thread = threading.Thread(target=_run, args=arguments, name="StatsD", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Send a last time and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_END_S)
            self._thread = None


def _run(lines: Callable[[], Sequence[str]], settings: MetricsConfig, stop: threading.Event) -> None:
    address = settings.address
    duties = Duties({"send metrics to StatsD": lambda: _send(lines(), address.host, address.port, stop)})
    duties.look()
    while not stop.wait(settings.interval):
        duties.look()
    duties.look()


def _send(lines: Sequence[str], host: str, port: int, stop: threading.Event) -> None:
    """Send the lines. What this host or the receiver has no room for is lost, as usual with StatsD. Raises OSError when the host
    is not known."""
    import socket  # memory of each controller, and most send nothing
    family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sock:
        sock.setblocking(False)
        for number, datagram in enumerate(_datagrams(lines), 1):
            try:
                sock.sendto(datagram, where)
            except BlockingIOError:
                pass
            if not number % _AT_ONCE:
                stop.wait(_PAUSE_S)


def _datagrams(lines: Sequence[str]) -> Iterator[bytes]:
    """The lines in as few datagrams as possible."""
    held: list[str] = []
    size = 0
    for line in lines:
        if held and size + len(line) >= _DATAGRAM_BYTES:
            yield "\n".join(held).encode()
            held, size = [], 0
        held.append(line)
        size += len(line) + 1
    if held:
        yield "\n".join(held).encode()
