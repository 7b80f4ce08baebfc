"""The proxies of the side-by-side benchmark, each started as its users start it, over the same four origin servers."""
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BULK_BYTES = 1 << 20

_TEMPORARY = "".join(f"{kind}_temp_path {{folder}}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
_ORIGIN = """
worker_processes 1; daemon off; pid {folder}/origin.pid; error_log {folder}/origin.err;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s; """ + _TEMPORARY + """
  server {{ {listen}
    location / {{ default_type text/plain; add_header X-Request-Id abcdef0123456789; add_header Vary Accept-Encoding;
      add_header Cache-Control "private, max-age=0"; add_header Set-Cookie "a=b; Path=/; HttpOnly"; return 200 "{body}\\n"; }}
    location /visit {{ default_type text/html; add_header X-Request-Id $request_id; add_header Vary Accept-Encoding;
      add_header Cache-Control "private, max-age=0"; add_header Set-Cookie "session=$request_id; Path=/; HttpOnly";
      add_header ETag "\\"$request_id\\""; add_header X-Served-By $server_addr:$server_port;
      return 200 "{body}{body}{body}{body}{body}{body}{body}{body}$request_id\n"; }}
    location /bulk {{ root {folder}; try_files /bulk.bin =404; }} }} }}
"""
_NGINX = """
worker_processes {workers}; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; """ + _TEMPORARY + """
  upstream b {{ zone b 64k; least_conn; {servers} keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} reuseport{tls}; location / {{ proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; proxy_pass http://b; }} }} }}
"""
_HAPROXY = """
global
  nbthread {workers}
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend f
  bind 127.0.0.1:{port}{tls}
  default_backend b
backend b
  balance leastconn
{servers}
"""
_APACHE = """
ServerRoot {folder}
ServerName bench.test
PidFile {folder}/httpd.pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
{modules}
DefaultRuntimeDir {folder}
StartServers {workers}
ServerLimit {workers}
ThreadsPerChild 128
MaxRequestWorkers {threads}
MinSpareThreads {threads}
MaxSpareThreads {threads}
KeepAlive On
MaxKeepAliveRequests 0
ProxyPreserveHost On
<Proxy balancer://b>
{servers}
ProxySet lbmethod=bybusyness
</Proxy>
ProxyPass / balancer://b/
{tls}
"""
_APACHE_MODULES = ("mpm_event", "authz_core", "proxy", "proxy_http", "proxy_balancer", "lbmethod_bybusyness", "slotmem_shm",
                   "ssl")
_CADDY = """
{{
  admin off
  auto_https off
  default_sni bench.test
  log {{
    level ERROR
  }}
}}
{scheme}://:{port} {{
  bind 127.0.0.1
  {tls}
  reverse_proxy {servers} {{
    lb_policy least_conn
    transport http {{
      keepalive_idle_conns_per_host 256
    }}
  }}
}}
"""
_PREFORK_LB = """
[listen]
bind = ["127.0.0.1:{port}"]
workers = {workers}
{tls}
[pools.web]
policy = "least-connections"
servers = [{servers}]
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all contenders of one run share."""

    folder: Path
    workers: int
    origins: tuple[int, ...]  # ports
    certificate: Path | None  # with its key: listen with TLS


@dataclass(frozen=True, slots=True)
class Running:
    port: int
    pid: int


class NotStarted(Exception):
    """A program did not come up; the message has what it wrote."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path, environ: dict[str, str] | None = None) -> Iterator[Running]:
    """A program that listens on `port`; it and its children are ended afterwards. Raises NotStarted."""
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env={**os.environ, **(environ or {})})
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"{command[0]}: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        time.sleep(0.5)  # its other workers
        yield Running(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def program(name: str) -> str | None:
    """The path of a program, also where only root's PATH leads."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _folder(setup: Setup, name: str) -> Path:
    folder = setup.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def origins(folder: Path, count: int = 4) -> Iterator[tuple[int, ...]]:
    """nginx as four origin servers: 130 bytes at /, 1 MiB at /bulk. Their ports."""
    folder.mkdir(parents=True, exist_ok=True)
    ports = tuple(free_port() for _ in range(count))
    (folder / "bulk.bin").write_bytes(os.urandom(BULK_BYTES))
    listen = " ".join(f"listen 127.0.0.1:{port};" for port in ports)
    config = folder / "origin.conf"
    config.write_text(_ORIGIN.format(folder=folder, listen=listen, body="0123456789abcdef" * 8))
    nginx = program("nginx")
    if nginx is None:
        raise NotStarted("nginx is missing, and the origin servers are nginx: apt-get install nginx-light")
    with running([nginx, "-c", str(config)], ports[0], folder):
        yield ports


@contextlib.contextmanager
def _nginx(setup: Setup) -> Iterator[Running]:
    folder, port = _folder(setup, "nginx"), free_port()
    tls = f" ssl; ssl_certificate {setup.certificate}; ssl_certificate_key {setup.certificate}" if setup.certificate else ""
    servers = " ".join(f"server 127.0.0.1:{origin};" for origin in setup.origins)
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, workers=setup.workers, port=port, servers=servers, tls=tls))
    with running([program("nginx") or "nginx", "-c", str(folder / "nginx.conf")], port, folder) as found:
        yield found


@contextlib.contextmanager
def _haproxy(setup: Setup) -> Iterator[Running]:
    folder, port = _folder(setup, "haproxy"), free_port()
    servers = "\n".join(f"  server s{origin} 127.0.0.1:{origin}" for origin in setup.origins)
    tls = f" ssl crt {setup.certificate}" if setup.certificate else ""
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(workers=setup.workers, port=port, servers=servers, tls=tls))
    with running([program("haproxy") or "haproxy", "-f", str(folder / "haproxy.cfg")], port, folder) as found:
        yield found


@contextlib.contextmanager
def _apache(setup: Setup) -> Iterator[Running]:
    folder, port = _folder(setup, "apache"), free_port()
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in _APACHE_MODULES)
    if os.geteuid() == 0:
        modules += "\nUser www-data\nGroup www-data"
    servers = "\n".join(f"BalancerMember http://127.0.0.1:{origin}" for origin in setup.origins)
    tls = f"SSLEngine on\nSSLCertificateFile {setup.certificate}" if setup.certificate else ""
    (folder / "httpd.conf").write_text(_APACHE.format(
        folder=folder, port=port, modules=modules, servers=servers, workers=setup.workers, threads=128 * setup.workers, tls=tls))
    command = [program("apache2") or "apache2", "-DFOREGROUND", "-f", str(folder / "httpd.conf")]
    with running(command, port, folder) as found:
        yield found


@contextlib.contextmanager
def _caddy(setup: Setup) -> Iterator[Running]:
    folder, port = _folder(setup, "caddy"), free_port()
    servers = " ".join(f"127.0.0.1:{origin}" for origin in setup.origins)
    (folder / "Caddyfile").write_text(_CADDY.format(
        port=port, servers=servers, scheme="https" if setup.certificate else "http",
        tls=f"tls {setup.certificate} {setup.certificate}" if setup.certificate else ""))
    command = [program("caddy") or "caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, port, folder, {"GOMAXPROCS": str(setup.workers), "HOME": str(folder)}) as found:
        yield found


def _prefork_lb(name: str, *options: str) -> Callable[[Setup], contextlib.AbstractContextManager[Running]]:
    @contextlib.contextmanager
    def start(setup: Setup) -> Iterator[Running]:
        folder, port = _folder(setup, name), free_port()
        servers = ", ".join(f'"127.0.0.1:{origin}"' for origin in setup.origins)
        tls = f'[[listen.certificates]]\ncertificate = "{setup.certificate}"' if setup.certificate else ""
        config = folder / "prefork_lb.toml"
        config.write_text(_PREFORK_LB.format(port=port, workers=setup.workers, servers=servers, tls=tls))
        command = [str(Path(sys.executable).with_name("gunicorn")), "-c", str(REPOSITORY / "gunicorn.conf.py"), *options,
                   "prefork_lb:app"]
        environ = {"PREFORK_LB_CONFIG": str(config), "PYTHONPATH": str(REPOSITORY)}
        with running(command, port, folder, environ) as found:
            yield found

    return start


CONTENDERS: dict[str, Callable[[Setup], contextlib.AbstractContextManager[Running]]] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "caddy": _caddy,
    "apache": _apache,
    "prefork_lb": _prefork_lb("prefork_lb"),
    "prefork_lb gevent": _prefork_lb("gevent", "-k", "gevent"),
    "prefork_lb gthread": _prefork_lb("gthread", "-k", "gthread", "--threads", "32"),
    "prefork_lb sync": _prefork_lb("sync", "-k", "sync", "--threads", "1"),
}
"""Starts a contender by its name; the context's value tells where it listens and its first process."""

NEEDS = {"nginx": "nginx", "haproxy": "haproxy", "caddy": "caddy", "apache": "apache2"}
"""The program that a contender needs, where it is not our own."""
