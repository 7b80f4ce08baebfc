"""The balancer as a user starts it: a real gunicorn in a folder of its own, with a TOML file beside it."""
from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gunicorn.config import Config

from prefork_lb.shared.finding import DIRECTORY
from tests.support import processes
from tests.support.client import Connection, Truncated
from tests.support.instances import instances, standing
from tests.support.place import HOST, clean_environment
from tests.support.waiting import PATIENCE_S, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = REPOSITORY / "gunicorn.conf.py"

# The script of this interpreter's environment, whether or not it is on the PATH. Not `-m gunicorn`: after USR2 that one
# runs gunicorn/__main__.py as a file, and gunicorn's own `http` package hides Python's.
GUNICORN = (sys.executable, str(Path(sys.executable).with_name("gunicorn")))

# Two instances of one user would share gunicorn's default control socket. Older versions have none.
NO_CONTROL_SOCKET = ["--no-control-socket"] if "control_socket_disable" in Config().settings else []


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """A worker class with the numbers that it needs for a test.

    `workers` and `threads` for the tests that hold requests: a sync worker holds one request, so that holding 16 takes
    16 workers. `held` is how many requests one burst holds.
    """

    worker_class: str
    workers: int
    threads: int
    held: int

    @property
    def arguments(self) -> list[str]:
        return ["-k", self.worker_class] + (["--threads", str(self.threads)] if self.threads else [])

    def __str__(self) -> str:
        return self.worker_class.rpartition(".")[2]


# gthread accepts more connections than it has threads and lets them wait, whichever worker they came to: for 64 held
# requests over 4 workers each worker must be able to hold all.
FRONT_ENDS = (
    FrontEnd("sync", workers=16, threads=1, held=16),
    FrontEnd("gthread", workers=4, threads=64, held=64),
    FrontEnd("gevent", workers=4, threads=0, held=64),
    FrontEnd("prefork_lb.worker.ProxyWorker", workers=4, threads=0, held=64),
)
SYNC, GTHREAD, GEVENT, PROXY = FRONT_ENDS


def pool_text(servers: Iterable[str], policy: str = "least-connections", name: str = "web", more: str = "") -> str:
    """A pool of the configuration; a server is an address, or an inline table that starts with "{"."""
    items = ",\n".join("  " + (server if server.startswith("{") else f'"{server}"') for server in servers)
    return f'[pools.{name}]\npolicy = "{policy}"\nservers = [\n{items},\n]\n{more}\n'


class StartFailed(Exception):
    """The balancer ended instead of starting. `code` is its exit code, `log` all that it wrote."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"exit code {code}:\n{log}")
        self.code, self.log = code, log


class Balancer:
    """One running instance; a context manager.

    `config` is the TOML file's text (None: no file). `settings` is the gunicorn settings file, None for none at all.
    It binds a port of the kernel's choice, unless `bind` is None (then the TOML's bind counts). `workers` None leaves
    the number to the TOML. `secure` tells that it listens with TLS; `probe` is what must go ahead of a request.
    """

    def __init__(
        self,
        folder: Path,
        config: str | None,
        front_end: FrontEnd = GTHREAD,
        *,
        workers: int | None = 4,
        bind: str | None = f"{HOST}:0",
        settings: Path | str | None = SETTINGS,
        extra: Iterable[str] = (),
        environ: dict[str, str] | None = None,
        secure: bool = False,
        probe: bytes = b"",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.front_end = folder, front_end
        self.config_file = folder / "prefork_lb.toml"
        self.log_file = folder / "gunicorn.log"
        self._environ = dict(environ or {})
        if config is not None:
            self.config_file.write_text(config)
            self._environ.setdefault("PREFORK_LB_CONFIG", str(self.config_file))
        self._arguments = list(GUNICORN)
        self._arguments += ["-c", str(settings)] if settings else []
        self._arguments += front_end.arguments
        self._arguments += ["-w", str(workers)] if workers is not None else []
        self._arguments += ["-b", bind] if bind is not None else []
        self._arguments += [*NO_CONTROL_SOCKET, *extra, "prefork_lb:app"]
        self.expected_workers = workers
        self._secure, self._probe = secure, probe
        # A worker joins when it loads the app, by the hook of our settings, or as a ProxyWorker. Preloaded and without
        # both of these it joins with its first request: nothing to wait for, and no test may count on it.
        hooked = settings is not None or front_end.worker_class == PROXY.worker_class
        self._joins_early = hooked or "--preload" not in self._arguments
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.last_master = 0  # the master's pid, also after its end
        self._standing: set[int] = set()  # workers that were seen to stand: an instance remembers so many events only

    def __enter__(self) -> Balancer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # -- start and end ------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        return {**clean_environment(), "PYTHONUNBUFFERED": "1", **self._environ}

    def start(self) -> None:
        """Start it and wait until all its workers stand and it answers. Raises StartFailed."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._arguments, cwd=self.folder, env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )
        self.last_master = self.process.pid
        try:
            wait_until(self._is_up, lambda: f"the balancer is up\n{self.log()}", 60, every=0.05)
        except BaseException:
            self.stop()
            raise

    def _is_up(self) -> bool:
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            raise StartFailed(code, self.log(since_start=True))
        if "Listening at:" not in self.log(since_start=True) or not self.workers():
            return False
        workers = self.workers()
        if self.expected_workers is not None and len(workers) < self.expected_workers:
            return False
        return self._are_ready(workers) and answers(self.address, self._secure, self._probe)

    def _are_ready(self, workers: Iterable[int]) -> bool:
        """Whether these workers take signals and go by their configuration, as far as they do before a request."""
        # A signal to a worker that still has the handlers of its master is lost. Only workers catch SIGABRT.
        if not all(processes.catches(pid, signal.SIGABRT) for pid in workers):
            return False
        if not self._joins_early or self._standing.issuperset(workers):
            return True
        # By their pids alone: after USR2 the instance is called after another master.
        self._standing |= standing()
        return self._standing.issuperset(workers)

    def stop(self, signal_number: int = signal.SIGQUIT) -> int:
        """End it and everything it started; return the master's exit code."""
        process = self.process
        if process is None:
            return 0
        workers = self.workers()
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal_number)
        try:
            code = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            at = {pid: processes.doing(pid) for pid in (process.pid, *workers)}
            sent = signal.Signals(signal_number).name
            warnings.warn(f"{self.front_end} did not end within {PATIENCE_S:g} s of {sent}: {at}", stacklevel=2)
            process.kill()
            code = process.wait(10)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process = None
        for segment in segments(process.pid):
            segment.unlink(missing_ok=True)
        return code

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def master(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    def workers(self) -> list[int]:
        """The worker processes, oldest first (other children, such as Python's resource tracker, are left out)."""
        if self.process is None:
            return []
        own = processes.command_line(self.process.pid)
        found = processes.children(self.process.pid)
        return [pid for pid in found if processes.is_running(pid) and processes.command_line(pid) == own]

    def log(self, since_start: bool = False) -> str:
        """Everything written to stdout and stderr."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_bytes()[self._log_start if since_start else 0 :].decode(errors="replace")

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens (the last "Listening at", since a reload may move it)."""
        found = re.findall(r"Listening at: https?://(\[[^]]+\]|[^:\s]+):(\d+)", self.log(since_start=True))
        assert found, f"no TCP address in the log:\n{self.log()}"
        return found[-1][0].strip("[]"), int(found[-1][1])

    # -- what a test does to it ---------------------------------------------------------------------------------

    def kill_worker(self, pid: int, signal_number: int = signal.SIGKILL) -> None:
        os.kill(pid, signal_number)

    def wait_for_workers(self, count: int, without: Iterable[int] = (), seconds: float = PATIENCE_S) -> list[int]:
        """Wait until exactly `count` workers run and stand, and none of them is one of `without`."""
        gone = set(without)

        def ready() -> list[int]:
            now = self.workers()
            right = len(now) == count and not gone & set(now)
            return now if right and self._are_ready(now) else []

        return wait_until(
            ready, lambda: f"{count} workers without {gone}, now {self.workers()}\n{self.log()}", seconds, every=0.02
        )

    def reload(self) -> None:
        """HUP, and wait until new workers stand (old ones may still be finishing requests)."""
        before = set(self.workers())
        wanted = self.expected_workers or len(before)
        os.kill(self.master, signal.SIGHUP)
        wait_until(
            lambda: len(new := set(self.workers()) - before) >= wanted and self._are_ready(new),
            lambda: f"new workers after HUP, now {self.workers()} before {before}\n{self.log()}",
            every=0.02,
        )

    # -- what it says of itself ---------------------------------------------------------------------------------

    def command(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `prefork-lb ARGUMENTS` in the balancer's folder and environment."""
        return subprocess.run(
            [sys.executable, "-m", "prefork_lb", *arguments], cwd=self.folder, env=self.environment(),
            capture_output=True, text=True, timeout=timeout, check=False,
        )

    def by_hand(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `prefork-lb WORDS` on this instance, whatever others run on the machine."""
        name, *others = words
        return self.command(name, "--master", str(self.master), *others, timeout=timeout)  # other words may name another one

    def status(self) -> Status:
        """What `prefork-lb status --json` says of this instance, read without a process of its own for it."""
        found = [dataclasses.asdict(instance) for instance in instances() if instance.master == self.master]
        assert len(found) == 1, f"master {self.master} is not once in {found}"
        return Status(found[0])

    def wait_until_idle(self, seconds: float = PATIENCE_S) -> Status:
        """Wait until all in-flight totals, of servers and of workers, are 0."""
        last: list[Status] = []

        def idle() -> bool:
            last[:] = [self.status()]
            return last[0].is_idle

        wait_until(idle, lambda: f"in-flight totals return to 0: {last}", seconds, every=0.05)
        return last[0]


class Status:
    """One instance's part of `prefork-lb status --json`."""

    def __init__(self, instance: dict[str, Any]) -> None:
        self.instance = instance

    @property
    def segment(self) -> str:
        return str(self.instance["segment"])

    @property
    def in_flight(self) -> dict[str, int]:
        """In-flight total by server address (over all pools)."""
        totals: dict[str, int] = {}
        for server in self.instance["servers"]:
            totals[server["address"]] = totals.get(server["address"], 0) + int(server["in_flight"])
        return totals

    @property
    def workers(self) -> dict[int, int]:
        """Claims by worker pid."""
        return {int(worker["pid"]): int(worker["in_flight"]) for worker in self.instance["workers"]}

    @property
    def is_idle(self) -> bool:
        return not any(self.in_flight.values()) and not any(self.workers.values())

    def __repr__(self) -> str:
        return f"Status({json.dumps(self.instance)})"


def segments(master: int | None = None) -> list[Path]:
    """Shared memory segments of prefork_lb; of one master when its pid is given."""
    # prefork-lb-<uid>-<master pid>-<start time>
    return sorted(DIRECTORY.glob(f"prefork-lb-*-{'*' if master is None else master}-*"))


def answers(address: tuple[str, int], secure: bool, before: bytes) -> bool:
    """Whether a request without Host is refused: the app is loaded, and no server is asked for it. `before` goes ahead of it."""
    try:
        with Connection(address, timeout=2) as connection:
            connection.send(before)
            if secure:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                connection.sock = context.wrap_socket(connection.sock)
            connection.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            return connection.response().status == 400
    except (OSError, Truncated):
        return False


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Hold these processes still (SIGSTOP) while the block runs, so that others take all the work."""
    held: list[int] = []
    try:
        for pid in pids:
            held.append(pid)
            hold_still(pid)
        yield
    finally:
        for pid in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def hold_still(pid: int, seconds: float = PATIENCE_S) -> None:
    """Stop a process where it does not hold an instance's lock, and wait until it stands still."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: processes.is_stopped(pid) or not processes.is_running(pid), f"{pid} stands still", seconds)
        assert processes.is_running(pid), f"{pid} ended before it stood still"
        if not processes.holds_a_ledger(pid):
            return
        # All other workers would wait for it: on with it until it is outside, and once more.
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not processes.holds_a_ledger(pid), f"{pid} gives the lock back", seconds, every=0.0005)
    raise AssertionError(f"{pid} was inside the lock of its instance whenever it was stopped within {seconds:g} s")
