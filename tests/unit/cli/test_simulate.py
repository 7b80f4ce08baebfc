"""`prefork-lb simulate`: from arguments, logs and pools to a table, JSON and a picture."""
from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prefork_lb.cli.main import main

LOAD = ("--rate", "300", "--service", "exponential:30ms", "--requests", "2000", "--runs", "2", "--workers", "4")
CONFIG = """
[pools.web]
policy = "consistent-hash"
key = "source"
servers = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 2, max_connections = 9 },
  { address = "10.0.0.3:80", backup = true }]
[pools.web.queue]
size = 5
[pools.other]
servers = ["10.0.0.9:80"]
[[routes]]
pool = "web"
"""


def simulate(*arguments: str, **more: object) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments], catch_exceptions=False, **more)  # type: ignore[arg-type]


def test_a_described_load_is_a_table_and_a_choice() -> None:
    found = simulate(*LOAD, "--when", "b slow 10 from 2s to 20s")
    assert found.exit_code == 0, found.output
    lines = found.stdout.splitlines()
    assert lines[0] == "300 requests/s, service exponential:30ms, 4 servers; b slow 10 from 2s to 20s of 4 workers each"
    assert lines[2] == "the load takes 56% of what the servers can do"
    assert {"round-robin", "least-connections", "random"} <= {line.split()[0] for line in lines[4:]}
    assert "\nchoose " in found.stdout


def test_json_has_all_of_it_and_is_the_same_every_time(tmp_path: Path) -> None:
    arguments = (*LOAD, "--policy", "least-connections", "--policy", "random", "--json", "--svg", str(tmp_path / "a.svg"))
    found = simulate(*arguments)
    values = json.loads(found.stdout)
    assert [each["policy"] for each in values["policies"]] == ["least-connections", "random"]
    assert values["policies"][0]["requests"] == 4000 and set(values["policies"][0]["shares"]) == set("abcd")
    assert values["choice"]["policy"] == "least-connections"
    assert simulate(*arguments).stdout == found.stdout
    ElementTree.fromstring((tmp_path / "a.svg").read_text())


@pytest.mark.parametrize(("policy", "key"), [
    ("power-of-two", 'load = "least-time"'), ("hash", 'compatible = "nginx"'), ("consistent-hash", "load_factor = 0"),
])
def test_the_policy_goes_by_the_settings_of_its_pool(tmp_path: Path, policy: str, key: str) -> None:
    file = tmp_path / "lb.toml"
    found = []
    for line in ("", key):
        file.write_text(f'[pools.web]\npolicy = "{policy}"\n{line}\nservers = ["10.0.0.1:80", "10.0.0.2:80"]\n'
                        + ("" if policy == "power-of-two" else 'key = "uri"\n'))
        values = json.loads(simulate(*LOAD, "--config", str(file), "--policy", policy, "--json").stdout)
        found.append([values["policies"][0][name] for name in ("mean_ms", "shares")])
    assert found[0] != found[1]


def test_the_servers_may_be_those_of_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "lb.toml"
    file.write_text(CONFIG)
    found = simulate(*LOAD, "--config", str(file), "--pool", "web", "--json")
    values = json.loads(found.stdout)
    assert values["servers"][1] == {"name": "10.0.0.2:80", "weight": 2, "workers": 4, "max_connections": 9, "backup": False}
    assert "consistent-hash" in {each["policy"] for each in values["policies"]}, "the pool's own policy takes part"
    missing = simulate(*LOAD, "--config", str(file), "--pool", "wbe")
    assert missing.exit_code == 1 and "no pool 'wbe'" in missing.stderr and "web, other" in missing.stderr


def log_lines(count: int) -> str:
    return "".join(f'192.0.2.{number % 9} - - [25/Nov/2026:12:00:{number % 60:02} +0000] "GET /{number} HTTP/1.1" 200 5 "-" "x" '
                   f'0.0{number % 9}1\n' for number in range(count))


def test_a_log_comes_from_a_pipe_and_bad_lines_are_told_with_their_numbers() -> None:
    found = simulate("-", "--runs", "1", "--json", input=log_lines(50) + "nonsense\n" + log_lines(70))
    assert found.exit_code == 0
    assert found.stderr == "warning: -: 1 line is no line of an access log and left out: 51\n"
    assert json.loads(found.stdout)["load"] == {"rate": 2.0, "service": "of the log", "requests": 120, "speed": 1.0}


def test_a_sites_own_policy_is_found_in_the_folder_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "site_spill.py").write_text(
        "class Spill:\n    def __init__(self, rng, memory): pass\n"
        "    def pick(self, candidates, request): return candidates[0]\n")
    done = subprocess.run([sys.executable, "-P", "-m", "prefork_lb", "simulate", *LOAD, "--policy", "site_spill:Spill", "--json"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["policies"][0]["shares"] == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log_lines(200))
    command = f"{sys.executable} -m prefork_lb simulate {tmp_path}/log --runs 1 --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "give an access LOG, or --rate and --service"),
    (("--rate", "5"), "give an access LOG, or --rate and --service"),
    (("nowhere.log",), "nowhere.log: No such file"),
    ((".",), ".: Is a directory"),
    (("-", "--rate", "5"), "--rate goes without a LOG"),
    ((*LOAD, "--policy", "peek-ewma"), "'peek-ewma' is not a policy"),
    ((*LOAD, "--policy", "no_such_module:Class"), "no module named 'no_such_module'"),
    ((*LOAD, "--servers", "2", "--server", "a"), "give one of them"),
    ((*LOAD, "--server", "a", "--server", "a"), "two servers have one name"),
    ((*LOAD, "--server", "a backup"), "every server is a backup"),
    ((*LOAD, "--server", "a weight=no"), "'weight=no' is no option"),
    ((*LOAD, "--when", "z fail from 1s to 2s"), "there is no server 'z'"),
    ((*LOAD, "--when", "a fail from 1s to 3s", "--when", "a slow 2 from 2s to 3s"), "before the one from 1 s on has ended"),
    ((*LOAD[:2], "--service", "exponential"), "'exponential': expected"),
    ((*LOAD, "--when", "a slow 1e300 from 1s"), "--when: 'a slow 1e300 from 1s': '1e300' is no factor; expected"),
    ((*LOAD[:2], "--service", "constant:0.0001us"), "--service: 'constant:0.0001us': the mean must be from 1us to 24h"),
    ((*LOAD, "--server", "a weight=" + "9" * 5000), "--server: server a: 'weight=9999"),
    *(((option, number), f"Invalid value for '{option}': {shown}") for option in ("--rate", "--speed") for number, shown in (
        ("nan", "nan is no number"), ("inf", "inf is not in the range 0.001<=x<=1000000."),
        ("1e-300", "1e-300 is not in the range 0.001<=x<=1000000."), ("0", "0.0 is not in the range 0.001<=x<=1000000."))),
    ((*LOAD, "--svg", "/nowhere/x.svg"), "/nowhere/x.svg: No such file"),
    ((*LOAD, "--config", "nowhere.toml"), "nowhere.toml: cannot be read"),
])
def test_what_is_wrong_is_told_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    found = simulate(*arguments, input="")
    assert found.exit_code in (1, 2)
    assert message in found.stderr and "Traceback" not in found.output


def test_the_ends_of_the_ranges_are_simulated() -> None:
    for described in (("--rate", "0.001", "--service", "exponential:24h", "--when", "a slow 10000 from 0"),
                      ("--rate", "1000000", "--service", "pareto:1us,1.01", "--when", "a slow 0.001 from 0")):
        found = simulate(*described, "--requests", "200", "--runs", "1")
        assert found.exit_code == 0 and "choose " in found.stdout and "nan" not in found.stdout, found.output


def test_an_overload_is_said_to_be_one() -> None:
    found = simulate("--rate", "900", "--service", "constant:30ms", "--requests", "500", "--runs", "1", "--workers", "1")
    assert "the load takes 675% of what the servers can do; times grow for as long as it lasts" in found.stdout
