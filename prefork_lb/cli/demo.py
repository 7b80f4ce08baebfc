"""`prefork-lb demo`: small app servers and the balancer before them, as real processes, until told to stop."""
from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

import click
import requests

from prefork_lb.cli.demo_plan import CALM, TROUBLE, DemoPlan
from prefork_lb.cli.traffic import SERVED_BY
from prefork_lb.errors import PreforkLBError
from prefork_lb.gunicorn.settings import CONF_FILE
from prefork_lb.shared.finding import SHM_VARIABLE
from prefork_lb.words import count

START_S = 30.0  # until everything must answer; a loaded machine imports slowly
STOP_S = 5.0  # for requests that are running, then SIGKILL
POLL_S = 0.1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1  # prctl(2)


class DemoError(PreforkLBError):
    """The demo cannot start or go on. The message says what happened, and the way out."""


class _Stopped(Exception):
    """A signal asked for the end."""


class _Child:
    """A process of the demo, in a session of its own: Ctrl-C reaches the demo alone, which ends the rest."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        piped: bool = False,
        environ: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        libc = ctypes.CDLL(None)
        self.name = name
        # The kernel ends it when the demo is killed, even by SIGKILL.
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else None,
            env=environ,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),
        )

    def check(self) -> None:
        """Raises DemoError when the process has ended."""
        code = self.process.poll()
        if code is not None:
            how = f"ended with exit code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
            raise DemoError(f"{self.name} (pid {self.process.pid}) {how}; see its messages above")

    def stop(self) -> None:
        """End it and its own children, if they still run, and wait for it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):  # the usual case: none of its children is left
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class _Signals:
    """Notes SIGINT, SIGTERM and SIGHUP while it is entered, and puts the old handlers back."""

    def __enter__(self) -> _Signals:
        self._received = False
        self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def check(self) -> None:
        """Raises _Stopped once a signal has come."""
        if self._received:
            raise _Stopped


def run_demo(port: int, workers: int, plan: DemoPlan, say: Callable[[str], None]) -> None:
    """Run the demo of `plan` until a signal comes, with the balancer on 127.0.0.1:`port` (0: a free one).

    Everything that was started has ended when this returns or raises. Raises DemoError.
    """
    with _Signals() as signals, contextlib.suppress(_Stopped), contextlib.ExitStack() as started:
        listener = started.enter_context(_listener(port))
        children: list[_Child] = []

        def check() -> None:
            signals.check()
            for child in children:
                child.check()

        def start(child: _Child) -> _Child:
            started.callback(child.stop)
            children.append(child)
            return child

        servers = [start(_Child(server.name, ["-m", "prefork_lb.cli.demo_server", *server.arguments()], piped=True))
                   for server in plan.servers()]
        addresses = {child.name: f"127.0.0.1:{_reported_port(child, check)}" for child in servers}
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="prefork-lb-demo-")))
        config = folder / "prefork_lb.toml"
        admin = _free_address()
        say(f"Dashboard: http://{admin}/")  # gunicorn's lines come next, and the invitation says it again below them
        config.write_text(plan.configuration(addresses, admin, str(folder / "access.log")))
        start(_balancer(config, listener, workers))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/"
        listener.close()
        _wait_for_answer(url, "the balancer", check, SERVED_BY)
        _wait_for_answer(f"http://{admin}/healthz", "the administration interface", check)
        if plan.traffic:
            start(_Child("the traffic", ["-m", "prefork_lb.cli.demo_traffic", str(port)], piped=True))
        say(_invitation(url, f"http://{admin}/", plan, addresses, workers, config))
        while True:
            check()
            time.sleep(POLL_S)


@contextlib.contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A listening socket, handed to gunicorn later: nobody can take the port in between."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(1024)
        except OSError as exc:
            why = "another program uses it" if exc.errno == errno.EADDRINUSE else exc.strerror
            other = port + 1 if 1024 <= port < 65535 else 8000
            raise DemoError(
                f"127.0.0.1:{port}: {why}; take another port: "
                f"`prefork-lb demo --port {other}` or `make demo PORT={other}`"
            ) from exc
        yield listener


def _free_address() -> str:
    """An address that nobody listens at. The administration interface tries again for as long as somebody else has it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def _balancer(config: Path, listener: socket.socket, workers: int) -> _Child:
    arguments = ["-m", "gunicorn", "-c", f"file:{CONF_FILE}", "-b", f"fd://{listener.fileno()}"]
    arguments += ["-w", str(workers), "--graceful-timeout", str(int(STOP_S) - 1), "prefork_lb:app"]
    environ = {name: value for name, value in os.environ.items()
               if name == SHM_VARIABLE or not name.startswith(("PREFORK_LB_", "GUNICORN_"))}
    environ["PREFORK_LB_CONFIG"] = str(config)
    return _Child("the balancer", arguments, environ=environ, pass_fds=[listener.fileno()])


def _reported_port(child: _Child, check: Callable[[], None]) -> int:
    assert child.process.stdout is not None, "started with pipes"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        # It prints its port in one piece; at its end there is an empty line to read.
        if select.select([child.process.stdout], [], [], POLL_S)[0]:
            line = child.process.stdout.readline()
            if line:
                return int(line)
            child.process.wait(STOP_S)
        check()
    raise DemoError(f"{child.name} did not start within {START_S:g} s")


def _wait_for_answer(url: str, who: str, check: Callable[[], None], field: str = "Content-Type") -> None:
    """Wait for a good answer that has this field."""
    deadline = time.monotonic() + START_S
    seen = "no connection"
    with requests.Session() as session:
        session.trust_env = False  # a proxy of the environment cannot reach our loopback
        while time.monotonic() < deadline:
            check()
            try:
                response = session.get(url, timeout=1)
            except requests.RequestException as exc:
                seen = str(exc)
            else:
                if response.ok and field in response.headers:
                    return
                seen = f"status {response.status_code}"
            time.sleep(POLL_S)
    raise DemoError(f"{who} did not answer at {url} within {START_S:g} s; last seen: {seen}")


def _invitation(url: str, dashboard: str, plan: DemoPlan, addresses: Mapping[str, str], workers: int, config: Path) -> str:
    command = _own_command()
    log = f"    {command} log --status 5xx\n" if plan.traffic else ""
    servers = "\n".join(
        f"    {server.name:<11} {addresses[server.name]}   {server.delay_ms} ms a request{server.troubles()}"
        for server in plan.servers()
    )
    return f"""
Dashboard: {dashboard}

prefork_lb balances {url} with {count(workers, "worker")} over
{servers}
    by {config}

Try, in another terminal:
    curl {url}
    {command} traffic {url}
    {command} status
{log}
Ctrl-C ends the demo."""


def _own_command() -> str:
    """What to type for `prefork-lb`, which need not be on the PATH."""
    script = Path(sys.executable).with_name("prefork-lb")
    if shutil.which("prefork-lb") or not script.exists():
        return "prefork-lb" if shutil.which("prefork-lb") else f"{sys.executable} -m prefork_lb"
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
              help="The balancer's port on 127.0.0.1; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Worker processes of the balancer.")
@click.option("--trouble", is_flag=True,
              help="Seven servers in two pools, and visitors: one server slows, fails and comes back, one fails its checks.")
def demo(port: int, workers: int, trouble: bool) -> None:
    """Run small app servers and the balancer before them, until Ctrl-C. The dashboard's address is printed first.

    \b
    Examples:
      prefork-lb demo
      prefork-lb demo --trouble --port 8080
    """
    try:
        run_demo(port, workers, TROUBLE if trouble else CALM, click.echo)
    except DemoError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo("The demo has ended.")
