"""The administration interface of an instance in real shared memory, at a port, for commands with --url."""
from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.serving import WSGIRequestHandler, make_server

from prefork_lb.config.admin import AdminConfig
from prefork_lb.shared.segment import Segment
from tests.support.place import HOST
from tests.unit.admin.interface import Interface


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


@contextmanager
def served(segment: Segment, token_file: str = "") -> Iterator[tuple[str, Interface]]:
    """Serve an instance; gives the URL and the interface."""
    interface = Interface(segment, AdminConfig(bind=f"{HOST}:1", token_file=token_file))
    server = make_server(HOST, 0, interface.application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://{HOST}:{server.port}", interface
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
