"""The units of deploy/, as systemd's own tools judge them."""
from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from prefork_lb.cli.run import run as run_command
from prefork_lb.config.scaling import ScalingConfig
from tests.support.balancer import segments

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICE, SOCKET = DEPLOY / "prefork-lb.service", DEPLOY / "prefork-lb.socket"
MOST_EXPOSED = 20  # tenths: 2.0 of systemd's scale from 0 (sealed) to 10 (open)
GRACEFUL_TIMEOUT_S = 30  # gunicorn's default

# The descriptor must be number 3, and the variable the pid of the process that takes it over.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: apt-get install systemd"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {**os.environ, "SYSTEMD_COLORS": "0", "LC_ALL": "C"}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=plain, check=False)


def settings(unit: Path) -> dict[str, list[str]]:
    """The values of each key of a unit, in their order."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", unit.read_text("utf-8"), re.MULTILINE):
        found.setdefault(key, []).append(value)
    return found


@needs_systemd
def test_systemd_accepts_both_units(tmp_path: Path) -> None:
    # The installation's path does not exist here: the same units with one that does.
    command = settings(SERVICE)["ExecStart"][0].split()[0]
    for unit in (SERVICE, SOCKET):
        (tmp_path / unit.name).write_text(unit.read_text("utf-8").replace(command, sys.executable))
    found = run("systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in (SERVICE, SOCKET)))
    assert (found.returncode, found.stderr) == (0, "")


@needs_systemd
def test_systemd_accepts_the_unit_of_a_server(tmp_path: Path) -> None:
    unit = DEPLOY / "app@.service"
    command = settings(unit)["ExecStart"][0].split()[0]
    text = unit.read_text("utf-8").replace(command, sys.executable).replace("/srv/app", str(tmp_path))
    (tmp_path / unit.name).write_text(text.replace("=app\n", "=root\n"))
    (tmp_path / SERVICE.name).write_text("[Service]\nExecStart=/bin/true\n")
    found = run("systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name), str(tmp_path / SERVICE.name))
    assert (found.returncode, found.stderr) == (0, "")


@needs_systemd
def test_systemd_refuses_a_broken_unit(tmp_path: Path) -> None:
    """The test above can fail."""
    broken = tmp_path / SERVICE.name
    broken.write_text(SERVICE.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystem=sometimes"))
    found = run("systemd-analyze", "verify", "--man=no", str(broken))
    assert "Failed to parse protect system" in found.stderr


@needs_systemd
def test_the_service_is_hardened() -> None:
    found = run("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(SERVICE))
    assert found.returncode == 0, found.stdout + found.stderr
    level = re.search(r"Overall exposure level for prefork-lb.service: (\d+\.\d)", found.stdout)
    assert level is not None, found.stdout
    assert float(level[1]) <= MOST_EXPOSED / 10


@needs_systemd
def test_the_user_of_the_service_is_the_one_that_sysusers_makes(tmp_path: Path) -> None:
    found = run("systemd-sysusers", "--dry-run", str(DEPLOY / "prefork-lb.sysusers.conf"))
    assert found.returncode == 0, found.stderr
    assert f"u {settings(SERVICE)['User'][0]} " in re.sub(r" +", " ", (DEPLOY / "prefork-lb.sysusers.conf").read_text())


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-tmpfiles --root needs root")
def test_tmpfiles_makes_the_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nprefork-lb:x:990:991::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nprefork-lb:x:991:\n")
    found = run("systemd-tmpfiles", "--create", f"--root={root}", str(DEPLOY / "prefork-lb.conf"))
    assert found.returncode == 0, found.stderr
    facts = {name: (root / name).stat() for name in ("etc/prefork-lb", "run/prefork-lb")}
    owners = {name: (oct(fact.st_mode & 0o777), fact.st_uid, fact.st_gid) for name, fact in facts.items()}
    assert owners == {"etc/prefork-lb": ("0o750", 0, 991), "run/prefork-lb": ("0o750", 990, 991)}


def test_the_service_takes_over_the_listening_socket_and_says_when_it_is_ready(tmp_path: Path) -> None:
    """What systemd does with prefork-lb.socket and Type=notify (sd_listen_fds(3), sd_notify(3)), done by hand."""
    (tmp_path / "lb.toml").write_text(
        '[listen]\nbind = ["127.0.0.1:1"]\nworkers = 1\n[pools.web]\nservers = ["127.0.0.1:1"]\n'
    )
    arguments = settings(SERVICE)["ExecStart"][0].split()[1:]
    arguments[-1] = "lb.toml"
    with socket.socket(socket.AF_INET6) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        listener.bind(("::1", 0))
        listener.listen()
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(30)
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(listener.fileno()), "-m", "prefork_lb", *arguments],
            cwd=tmp_path, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(DEPLOY.parent), "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )
        try:
            assert b"READY=1" in notified.recv(4096).splitlines()
            answer = requests.get(f"http://[::1]:{listener.getsockname()[1]}/", timeout=20)
        finally:
            process.terminate()
            assert process.wait(40) == 0
            for segment in segments(process.pid):
                segment.unlink(missing_ok=True)
    assert answer.status_code == 502  # the balancer's own page: nobody serves at port 1


def test_stopping_waits_longer_than_gunicorn_does() -> None:
    assert int(settings(SERVICE)["TimeoutStopSec"][0]) > GRACEFUL_TIMEOUT_S + ScalingConfig(max=1, target=1.0).stop_timeout


def test_the_command_of_the_service_is_one_that_the_command_line_knows() -> None:
    script, command, *arguments = settings(SERVICE)["ExecStart"][0].split()
    assert (Path(script).name, command) == ("prefork-lb", "run")
    context = run_command.make_context("run", arguments, resilient_parsing=False)
    assert context.params["config_file"] == "/etc/prefork-lb/prefork_lb.toml"
