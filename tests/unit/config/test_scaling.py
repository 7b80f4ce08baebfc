"""What `[pools.NAME.scaling]` may say, and what is told when it cannot work."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config.difference import differences
from prefork_lb.config.load import load
from prefork_lb.config.masked import masked
from prefork_lb.config.model import Config
from prefork_lb.errors import ConfigError

PROCESS = 'command = ["gunicorn", "--bind", "{address}", "site:app"]'


def content(scaling: str, pool: str = "", more: str = "") -> str:
    return f'[pools.app]\nservers = ["127.0.0.1:8001"]\n{pool}\n[pools.app.scaling]\n{scaling}\n{more}'


def load_text(tmp_path: Path, text: str) -> Config:
    (tmp_path / "a.toml").write_text(text)
    return load(tmp_path / "a.toml")


@pytest.mark.parametrize("scaling", [
    f"max = 8\ntarget = 4\n{PROCESS}",
    f'max = 8\ntarget = 0.5\ndriver = "process"\naddresses = "127.0.0.1:9000-9099"\nmin = 8\n{PROCESS}',
    'max = 8\ntarget = 4\ncommand = ["run", "{port}"]\naddresses = "auto"\nlimits = { nofile = 4096, core = 0 }\numask = "027"',
    f'max = 8\ntarget = 4\naddresses = "unix:/run/app/{{n}}.sock"\nuser = "root"\ngroup = "root"\n{PROCESS}',
    'max = 8\ntarget = 4\ndriver = "systemd"\nunit = "app@{n}.service"\naddresses = "[::1]:9000-9015"',
    'max = 8\ntarget = 4\ndriver = "systemd"\nunit = "app@{port}.service"\naddresses = "10.0.0.1:9000-9015"',
    'max = 8\ntarget = 4\ndriver = "command"\nup = ["up.sh"]\ndown = ["down.sh"]',
    f'max = 8\ntarget = 4\nschedules = [{{ at = "Mon-Fri 08:00", min = 6 }}, {{ at = "20:00", min = 1 }}]\n{PROCESS}'])
def test_good_ones(tmp_path: Path, scaling: str) -> None:
    section = load_text(tmp_path, content(scaling)).pools["app"].scaling
    assert section is not None and section.max == 8


@pytest.mark.parametrize(("scaling", "told"), [
    ("target = 4\n" + PROCESS, "max: missing"),
    ("max = 4\n" + PROCESS, "target: missing"),
    ("max = 2\ntarget = 4\nmin = 3\n" + PROCESS, "min: 3 is more than max, which is 2"),
    ("max = 2\ntarget = 0\n" + PROCESS, "target: 0 is not above 0"),
    ("max = 2\ntarget = 4", 'command: missing; driver = "process" needs it'),
    ('max = 2\ntarget = 4\ncommand = ["run"]', "command: has neither {address} nor {port}"),
    ("max = 2\ntarget = 4\nstable_window = 5\n" + PROCESS, "panic_window: 6 is longer than stable_window, which is 5"),
    ("max = 2\ntarget = 4\nidle = 30\n" + PROCESS, "idle: has no meaning where the last server never ends"),
    ("max = 2\ntarget = 4\nmin = 0\n" + PROCESS, "min: 0 needs a queue in which the first request waits for a server"),
    ('max = 2\ntarget = 4\naddresses = "127.0.0.1:9000"\n' + PROCESS,
     "addresses: '127.0.0.1:9000' is no range of addresses; expected"),
    ('max = 2\ntarget = 4\naddresses = "127.0.0.1:9000-9002"\n' + PROCESS,
     "addresses: '127.0.0.1:9000-9002' are 3; expected at least 4"),
    ('max = 2\ntarget = 4\naddresses = "unix:/run/app.sock"\n' + PROCESS, "addresses: 'unix:/run/app.sock' has no {n}"),
    ('max = 2\ntarget = 4\naddresses = "unix:/run/{n}"\ncommand = ["run", "{port}"]', "command: {port} has no meaning with unix"),
    ('max = 2\ntarget = 4\nuser = "nobody-of-that-name"\n' + PROCESS, "user: there is no user 'nobody-of-that-name'"),
    ('max = 2\ntarget = 4\ndirectory = "/nowhere"\n' + PROCESS, "directory: '/nowhere' is no directory"),
    ("max = 2\ntarget = 4\nlimits = { nofiles = 5 }\n" + PROCESS, "limits.nofiles: there is no such limit; expected one of as,"),
    ('max = 2\ntarget = 4\numask = "9"\n' + PROCESS, "umask: found '9'"),
    ('max = 2\ntarget = 4\ndriver = "command"\nup = ["up"]\ndown = ["down"]\nlog = "x"',
     'log: has no meaning with driver = "command"; it belongs to "process"'),
    ('max = 2\ntarget = 4\ncommand = ["run", "{port}\\u0000"]', "command[1]: has a zero byte, which no program"),
    ('max = 2\ntarget = 4\nlog = "/x\\u0000"\n' + PROCESS, "log: has a zero byte, which no program"),
    ('max = 2\ntarget = 4\nenvironment = { A = "\\u0000" }\n' + PROCESS, "environment.A: has a zero byte, which no program"),
    ('max = 2\ntarget = 4\nenvironment = { "A=B" = "x" }\n' + PROCESS, "environment.\"A=B\": 'A=B' is no name of a variable"),
    ('max = 2\ntarget = 4\ndriver = "command"\nup = ["up"]\ndown = ["down", "\\u0000"]', "down[1]: has a zero byte, which no"),
    ('max = 2\ntarget = 4\ndriver = "systemd"\nunit = "app@{n}.service\\u0000"\naddresses = "127.0.0.1:9000-9009"',
     "unit: has a zero byte, which no program"),
    ('max = 2\ntarget = 4\ndriver = "command"\nup = ["up"]', 'down: missing; driver = "command" needs it'),
    ('max = 2\ntarget = 4\ndriver = "systemd"\nunit = "app.service"\naddresses = "127.0.0.1:9000-9009"',
     "unit: 'app.service' is the same unit for all servers"),
    ('max = 2\ntarget = 4\ndriver = "systemd"\nunit = "app@{n}.service"', 'addresses: missing; driver = "systemd" needs it'),
    ('max = 2\ntarget = 4\ndriver = "systemd"\nunit = "app@{n}.service"\naddresses = "auto"', 'addresses: "auto" is for'),
    ('max = 2\ntarget = 4\nschedules = [{ at = "Someday 08:00", min = 1 }, { at = "9:00", min = 2 }]\n' + PROCESS,
     "schedules[0].at: 'Someday' in 'Someday 08:00' is no day; expected Mon,"),
    ('max = 2\ntarget = 4\nschedules = [{ at = "25:00", min = 1 }, { at = "9:00", min = 2 }]\n' + PROCESS,
     "schedules[0].at: '25:00' is no time of a week"),
    ('max = 2\ntarget = 4\nschedules = [{ at = "20:00", min = 5 }, { at = "9:00", min = 2 }]\n' + PROCESS,
     "schedules[0].min: 5 is more than max, which is 2"),
    ('max = 2\ntarget = 4\nschedules = [{ at = "20:00", min = 2 }]\n' + PROCESS, "schedules: a single time always holds")])
def test_what_cannot_work_is_told(tmp_path: Path, scaling: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, content(scaling))
    assert f"pools.app.scaling.{told}" in str(caught.value)
    assert len(caught.value.problems) == 1


def test_from_zero_with_a_queue_is_good(tmp_path: Path) -> None:
    config = load_text(tmp_path, content(f"max = 2\ntarget = 4\nmin = 0\nidle = 30\n{PROCESS}", more="[pools.app.queue]\n"))
    assert config.pools["app"].scaling is not None


def test_a_pool_that_redirects_has_no_scaling(tmp_path: Path) -> None:
    text = content(f"max = 2\ntarget = 4\n{PROCESS}", 'mode = "redirect"').replace(
        '"127.0.0.1:8001"', '{ address = "127.0.0.1:8001", public = "https://s1" }')
    with pytest.raises(ConfigError, match=r'pools.app.scaling: has no meaning with mode = "redirect"'):
        load_text(tmp_path, text)


@pytest.mark.parametrize(("one", "other", "is_good"), [
    ("127.0.0.1:9000-9009", "127.0.0.1:9009-9019", False), ("127.0.0.1:9000-9009", "127.0.0.1:9010-9019", True),
    ("127.0.0.1:9000-9009", "127.0.0.2:9000-9009", True), ("unix:/run/{n}", "unix:/run/{n}", False)])
def test_two_pools_share_no_address(tmp_path: Path, one: str, other: str, is_good: bool) -> None:
    text = content(f'max = 2\ntarget = 4\naddresses = "{one}"\n{PROCESS}', more=(
        f'[pools.b]\nservers = ["127.0.0.1:8002"]\n[pools.b.scaling]\nmax = 2\ntarget = 4\naddresses = "{other}"\n{PROCESS}\n'
        '[[routes]]\npool = "app"\n'))
    if is_good:
        assert load_text(tmp_path, text)
        return
    with pytest.raises(ConfigError, match=r"pools.b.scaling.addresses: .* are addresses of the pool 'app', too"):
        load_text(tmp_path, text)


def test_the_environment_of_servers_is_shown_to_nobody(tmp_path: Path) -> None:
    one = load_text(tmp_path, content(f'max = 2\ntarget = 4\nenvironment = {{ KEY = "one" }}\n{PROCESS}'))
    two = load_text(tmp_path, content(f'max = 2\ntarget = 4\nenvironment = {{ KEY = "two" }}\n{PROCESS}'))
    assert masked(one)["pools"]["app"]["scaling"]["environment"] == {"KEY": "***"}
    assert differences(one, two) == ["pools.app.scaling.environment: changed"]
