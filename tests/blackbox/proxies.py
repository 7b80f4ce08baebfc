"""Starts a proxy before an origin: nginx, HAProxy and Apache as a careful operator would, and prefork_lb."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.place import HOST

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 20.0
TIMEOUT_S = 2  # of the response and between two reads, in every proxy alike

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; server_tokens off; client_max_body_size 64m; underscores_in_headers off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_header_timeout 10s; client_body_timeout 10s;
  upstream origin {{ server {host}:{origin}; keepalive 16; }}
  server {{
    listen {host}:{port};
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection ""; proxy_set_header Forwarded "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;
      proxy_read_timeout {timeout}s; proxy_send_timeout {timeout}s; proxy_connect_timeout {timeout}s;
    }}
  }}
}}
"""

HAPROXY = """
global
  maxconn 1000
  nbthread 1
defaults
  mode http
  timeout connect {timeout}s
  timeout client 10s
  timeout server {timeout}s
  timeout http-request 10s
  option forwardfor
  option http-keep-alive
  http-reuse always
  retry-on conn-failure empty-response
frontend in
  bind {host}:{port}
  http-request disable-l7-retry if METH_POST
  http-request del-header Forwarded
  http-request set-header X-Forwarded-Proto http
  default_backend origin
backend origin
  server one {host}:{origin}
"""

APACHE = """
ServerRoot {folder}
ServerName bb.test
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
Listen {host}:{port}
{modules}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
Timeout 10
KeepAlive On
HttpProtocolOptions Strict
TraceEnable off
ProxyVia On
ProxyTimeout {timeout}
AllowEncodedSlashes NoDecode

RequestHeader unset Forwarded
RequestHeader set X-Forwarded-Proto http
ProxyPreserveHost On
ProxyPass / http://{host}:{origin}/ nocanon timeout={timeout} retry=0
"""
APACHE_MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "headers")

PREFORK_LB = """
[listen]
bind = ["{host}:{port}"]
workers = {workers}
[proxy]
trusted_proxies = []
[proxy.timeouts]
connect = {timeout}.0
response = {timeout}.0
idle = {timeout}.0
[pools.web]
policy = "least-connections"
servers = ["{host}:{origin}"]
"""


class NotStarted(Exception):
    """The proxy did not come up; the message has what it wrote."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether somebody answers a request on the port (with an error, as may be)."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), 2.0) as probe:
        probe.sendall(b"GET /ready HTTP/1.1\r\nHost: bb.test\r\nConnection: close\r\n\r\n")
        return bool(probe.recv(1))
    return False


@contextlib.contextmanager
def _process(command: list[str], port: int, folder: Path, environ: dict[str, str] | None = None) -> Iterator[None]:
    log = folder / "out.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, **(environ or {})})
    try:
        deadline = time.monotonic() + WAIT_S
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"{' '.join(command)}\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the session that was started above, nothing else
            process.wait(10)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="blackbox-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx and Apache change their user when started by root
        yield folder


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        raise NotStarted(f"{name} is not installed")
    return found


@contextlib.contextmanager
def nginx(origin: int) -> Iterator[int]:
    """The port of an nginx of one worker."""
    with _folder() as folder:
        port, config = _free_port(), folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, host=HOST, port=port, origin=origin, timeout=TIMEOUT_S))
        with _process([_program("nginx"), "-e", str(folder / "error.log"), "-c", str(config)], port, folder):
            yield port


@contextlib.contextmanager
def haproxy(origin: int) -> Iterator[int]:
    """The port of an HAProxy of one thread."""
    with _folder() as folder:
        port, config = _free_port(), folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(host=HOST, port=port, origin=origin, timeout=TIMEOUT_S))
        with _process([_program("haproxy"), "-db", "-f", str(config)], port, folder):
            yield port


@contextlib.contextmanager
def apache(origin: int) -> Iterator[int]:
    """The port of an Apache with the event MPM, of one process."""
    with _folder() as folder:
        port, config = _free_port(), folder / "httpd.conf"
        home = Path("/usr/lib/apache2/modules")
        modules = "\n".join(f"LoadModule {name}_module {home}/mod_{name}.so" for name in APACHE_MODULES)
        user = "User www-data\nGroup www-data\n" if os.geteuid() == 0 else ""
        config.write_text(APACHE.format(folder=folder, host=HOST, port=port, origin=origin, timeout=TIMEOUT_S,
                                        modules=modules) + user + f"DefaultRuntimeDir {folder}\n")
        with _process([_program("apache2"), "-DFOREGROUND", "-f", str(config)], port, folder):
            yield port


@contextlib.contextmanager
def prefork_lb(origin: int, worker_class: str, workers: int = 2, *options: str) -> Iterator[int]:
    """The port of prefork_lb under a real gunicorn."""
    with _folder() as folder:
        port, config = _free_port(), folder / "prefork_lb.toml"
        config.write_text(PREFORK_LB.format(host=HOST, port=port, origin=origin, timeout=TIMEOUT_S, workers=workers))
        command = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "-k", worker_class,
                   "--pythonpath", str(ROOT), *options, "prefork_lb:app"]
        environ = {"PREFORK_LB_CONFIG": str(config), "PYTHONPATH": str(ROOT)}
        with _process(command, port, folder, environ):
            yield port


Start = Callable[[int], contextlib.AbstractContextManager[int]]

PROXIES: dict[str, Start] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "apache": apache,
    "sync": lambda origin: prefork_lb(origin, "sync", 8, "--threads", "1"),
    "gthread": lambda origin: prefork_lb(origin, "gthread", 2, "--threads", "16"),
    "gevent": lambda origin: prefork_lb(origin, "gevent", 2),
    "ProxyWorker": lambda origin: prefork_lb(origin, "prefork_lb.worker.ProxyWorker", 2),
}
