"""Published tricks with paths against an access rule on /admin: prefork_lb, nginx and Apache beside one another.

    python -m benchmarks.path_tricks > docs/path-tricks.md

Each proxy passes everything on but /admin, which it forbids. What comes through is read as lenient servers read it
(`tests.support.lenient_readers`). It takes nginx and apache2.
"""
from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders import REPOSITORY, NotStarted, free_port, program, running
from tests.support.lenient_readers import readers_of
from tests.support.path_tricks import TRICKS

SECRET = b"/admin"
WAIT_S = 20.0
PREFORK_LB = """
[listen]
bind = ["127.0.0.1:{port}"]
workers = 1
[pools.web]
servers = ["127.0.0.1:{origin}"]
[[routes]]
pool = "web"
[[routes]]
paths = ["/admin"]
pool = "web"
deny = ["0.0.0.0/0", "::/0"]
"""
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location = /admin {{ return 403; }}
    location ^~ /admin/ {{ return 403; }}
    location / {{ proxy_pass http://127.0.0.1:{origin}; }}
  }}
}}
"""
APACHE = """
ServerRoot {folder}
ServerName h
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
{modules}
ProxyPass "/" "http://127.0.0.1:{origin}/"
<Location "/admin">
  Require all denied
</Location>
"""
INTRODUCTION = """# Path tricks

This page is written by `python -m benchmarks.path_tricks`; a test holds the column of prefork_lb against the code.

{count} targets from published lists of traversals and parser confusions, against a proxy that passes everything on but `/admin`,
which it forbids: prefork_lb by a route with `deny`, nginx by `location` (exact and prefix), Apache by `Location`, each otherwise
as installed. *Gets by* means that the proxy passes the request on, and a lenient server would serve `/admin`. The kinds of
servers are named; `tests/support/lenient_readers.py` says how they read. No site has all of them: the numbers say what a rule by
path is worth in front of a server that one does not know.

Not among them: servers that ignore case (write `"~(?i)^/admin(/|$)"`), and file names of Windows with trailing dots, streams or
short names. There a rule by path is of no use.
"""
MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http")


class Origin:
    """Notes the target of each request and closes the connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.targets: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connected, _ = self._listener.accept()
            with connected, contextlib.suppress(OSError):
                connected.settimeout(WAIT_S)
                head = b""
                while b"\r\n\r\n" not in head and (data := connected.recv(65536)):
                    head += data
                if head.count(b" ") >= 2:
                    self.targets.append(head.split(b" ")[1])
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


@contextlib.contextmanager
def proxies(origin: int) -> Iterator[dict[str, int]]:
    """The ports of those that there are, by name; the others are told on stderr."""
    with tempfile.TemporaryDirectory(prefix="path-tricks-") as name, contextlib.ExitStack() as stack:
        folder, found = Path(name), {}
        folder.chmod(0o755)  # nginx and Apache change their user when started by root
        gunicorn = str(Path(sys.executable).with_name("gunicorn"))
        modules = "\n".join(f"LoadModule {module}_module /usr/lib/apache2/modules/mod_{module}.so" for module in MODULES)
        modules += "\nUser www-data\nGroup www-data" if os.geteuid() == 0 else ""
        for label, text, command in (
            ("prefork_lb", PREFORK_LB, [gunicorn, "-c", str(REPOSITORY / "gunicorn.conf.py"), "prefork_lb:app"]),
            ("nginx", NGINX, [program("nginx"), "-e", "{folder}/error.log", "-c", "{config}"]),
            ("Apache", APACHE, [program("apache2"), "-DFOREGROUND", "-f", "{config}"]),
        ):
            port, config = free_port(), folder / f"{label}.conf"
            config.write_text(text.format(folder=folder, port=port, origin=origin, modules=modules))
            environ = {"PREFORK_LB_CONFIG": str(config), "PYTHONPATH": str(REPOSITORY)}
            try:
                if command[0] is None:
                    raise NotStarted("it is not installed")
                words = [word.format(folder=folder, config=config) for word in command if word is not None]
                found[label] = stack.enter_context(running(words, port, folder, environ)).port
            except NotStarted as exc:
                print(f"WITHOUT {label}: {exc}", file=sys.stderr)
        yield found


def outcome(port: int, origin: Origin, target: str) -> str:
    """What a proxy does with a target, as a cell of the table."""
    before = len(origin.targets)
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(65536):
                answer += data
    if len(origin.targets) == before:
        words = answer[:12].split(b" ")
        return f"refused: {words[1].decode()}" if len(words) > 1 else "refused"
    readers = readers_of(origin.targets[-1], SECRET)
    return f"**gets by**: {', '.join(readers)}" if readers else "passes, harmless"


def page(table: dict[str, list[str]]) -> str:
    """docs/path-tricks.md. `table` has a column of cells for each proxy."""
    kinds = {name: Counter(cell.partition(":")[0].strip("*") for cell in column) for name, column in table.items()}
    lines = [
        INTRODUCTION.format(count=len(TRICKS)),
        "| | " + " | ".join(table) + " |", "| --- |" + " --- |" * len(table),
        *(f"| {kind} | " + " | ".join(str(kinds[name][kind]) for name in table) + " |"
          for kind in ("refused", "passes, harmless", "gets by")), "",
        "| target | source | " + " | ".join(table) + " |", "| --- | --- |" + " --- |" * len(table),
    ]
    for number, (source, target) in enumerate(TRICKS):
        cells = " | ".join(column[number] for column in table.values())
        lines.append(f"| `{target}` | {source} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    origin = Origin()
    with proxies(origin.port) as ports:
        print(page({name: [outcome(port, origin, target) for _, target in TRICKS] for name, port in ports.items()}), end="")


if __name__ == "__main__":
    main()
