"""`prefork-lb check` and `prefork-lb run` up to the point where gunicorn takes over."""
from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from prefork_lb import __version__
from prefork_lb.cli import check_room
from prefork_lb.cli.exits import Exit
from prefork_lb.cli.main import main
from prefork_lb.gunicorn.settings import CONF_FILE
from prefork_lb.shared.segment import Segment, SegmentError
from prefork_lb.shared.state_file_lock import Holder, take
from tests.support.name_server import NameServer
from tests.support.place import clean_environment

GOOD = """
[listen]
bind = ["127.0.0.1:8000", "unix:/run/lb.sock"]
workers = 3

[pools.web]
policy = "round-robin"
servers = [
  "10.0.0.1:8001",
  { address = "10.0.0.2:8001", weight = 2, max_connections = 5 },
  { address = "[::1]:80", backup = true },
]

[pools.api]
servers = ["10.0.0.3:8001"]

[[routes]]
hosts = ["example.com", "*.example.org"]
paths = ["/api/"]
pool = "api"

[[routes]]
pool = "web"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, and an environment without settings; both are put back, whatever a command did."""
    monkeypatch.chdir(tmp_path)
    for name in ("PREFORK_LB_CONFIG", "PREFORK_LB_SERVERS", "PREFORK_LB_POLICY", "PREFORK_LB_BIND"):
        monkeypatch.setenv(name, "")  # so that it is put back even if it is not set now
        monkeypatch.delenv(name)
    # A machine that runs tests may run the balancer, too.
    for module in ("prefork_lb.config.load", "prefork_lb.cli.run"):
        monkeypatch.setattr(import_module(module), "SYSTEM_FILE", str(tmp_path / "none/prefork_lb.toml"))
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_the_version_is_told() -> None:
    assert invoke("--version").output == f"prefork-lb, version {__version__}\n"


def test_every_command_has_help() -> None:
    names = main.list_commands(click.Context(main))
    for name in names:
        found = invoke(name, "--help")
        assert (found.exit_code, found.output.startswith(f"Usage: main {name} ")) == (0, True)


def every_command() -> Iterator[tuple[str, click.Command]]:
    """All commands, those of groups as "config diff"."""
    ctx = click.Context(main)
    for name in main.list_commands(ctx):
        command = main.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


def test_the_help_of_every_command_has_examples_that_it_understands() -> None:
    for name, command in every_command():
        text = invoke(*name.split(), "--help").stdout.partition("Examples:\n")[2].partition("Options:")[0]
        examples = [line.partition(f"prefork-lb {name}")[2] for line in text.splitlines() if f"prefork-lb {name}" in line]
        assert examples, name
        for example in examples:
            words = shlex.split(re.split(r"  |[|;]|&&", example)[0])
            command.make_context(name, [word for word in words if word != "..."])  # raises a UsageError


def test_the_page_of_the_command_line_has_every_command_and_every_exit_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    for name, command in every_command():
        assert f"prefork-lb {name}" in page, name
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert {option for option in options if f"`{option}" not in page and f" {option}" not in page} == set(), name
    codes = re.findall(r"^\| (\d+) \|", page.partition("## Exit codes")[2], re.MULTILINE)
    assert codes == [str(code.value) for code in Exit]


def test_help_lists_every_command_with_what_it_does() -> None:
    listed = re.findall(r"^  (\w+)  +\w", invoke("--help").output.partition("Commands:")[2], re.MULTILINE)
    assert listed == main.list_commands(click.Context(main))


def test_a_command_that_does_not_exist_is_an_error_of_usage() -> None:
    found = invoke("drian")
    assert (found.exit_code, "No such command 'drian'" in found.stderr) == (2, True)


@pytest.mark.parametrize("command", ["drain", "check", "--version"])
def test_a_command_loads_no_library_that_it_does_not_need(command: str) -> None:
    """An operator's script runs some of them for each server; requests and rich take a tenth of a second."""
    code = ("import sys\nfrom prefork_lb.cli.main import main\n"
            f"try: main(['{command}', *sys.argv[1:]])\n"
            "except SystemExit: pass\n"
            "print({'requests', 'rich', 'werkzeug'} & set(sys.modules))")
    arguments = [] if command.startswith("-") else ["--help"]
    shown = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True,
                           env=clean_environment()).stdout
    assert shown.splitlines()[-1] == "set()"


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_tells_what_a_good_file_says(folder: Path) -> None:
    (folder / "good.toml").write_text(GOOD)
    found = invoke("check", "good.toml")
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "good.toml: good",
        "listen: 127.0.0.1:8000, unix:/run/lb.sock, workers: 3",
        "pool web: round-robin, 3 servers",
        "  10.0.0.1:8001, weight 1",
        "  10.0.0.2:8001, weight 2, at most 5 at once",
        "  [::1]:80, weight 1, backup",
        "pool api: least-connections, 1 server",
        "  10.0.0.3:8001, weight 1",
        "route example.com, *.example.org; /api/ -> pool api",
        "route any host; any path -> pool web",
    ]


def test_check_says_how_many_servers_a_pool_starts_itself(folder: Path) -> None:
    text = '[pools.app.scaling]\nmin = 2\nmax = 8\ntarget = 4\ncommand = ["run", "{port}"]\n'
    (folder / "good.toml").write_text(text)
    assert "pool app: least-connections, 0 servers, and 2 to 8 of its own (process)" in invoke("check", "good.toml").stdout


def test_check_without_a_file_takes_the_one_that_a_start_would_find(folder: Path) -> None:
    (folder / "prefork_lb.toml").write_text('[pools.only]\nservers = ["127.0.0.1:8001"]\n')
    found = invoke("check")
    assert (found.exit_code, found.stdout.splitlines()[-1]) == (0, "no routes: everything -> pool only")


def test_check_takes_servers_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFORK_LB_SERVERS", "127.0.0.1:8001,127.0.0.1:8002 weight=2")
    found = invoke("check")
    assert found.exit_code == 0
    assert "  127.0.0.1:8002, weight 2" in found.stdout.splitlines()


def test_check_tells_lists_of_servers_that_cannot_be_had(folder: Path) -> None:
    for name, text in (("few.json", "[]"), ("bad.yaml", "a: ["), ("good.toml", 'servers = ["10.0.0.1:80"]')):
        (folder / name).write_text(text)
    with NameServer() as server:
        (folder / "prefork_lb.toml").write_text("".join(
            f'[[routes]]\npool = "{name}"\nhosts = ["{name}"]\n[pools.{name}.discovery]\n{line}\n' for name, line in (
                ("none", 'file = "none.json"'), ("few", 'file = "few.json"'), ("bad", 'file = "bad.yaml"'),
                ("good", 'file = "good.toml"'), ("name", f'dns = "app.internal:80"\nresolver = ["{server.address}"]'))))
        found = invoke("check")
    assert found.exit_code == 0
    told = [line.removeprefix("warning: ") for line in found.stderr.splitlines()]
    assert [line.split(": ")[1] for line in told] == [f"pools.{name}.discovery" for name in ("none", "few", "bad", "name")]
    for line, problem in zip(told, ("No such file", "fewer than min_servers, which is 1", "not YAML", "there is no such name"),
                             strict=True):
        assert problem in line
    assert "pool good: least-connections, 0 servers, and those of file good.toml" in found.stdout


def with_state_file(folder: Path, state_file: Path) -> None:
    (folder / "prefork_lb.toml").write_text(f'[pools.web]\nservers = ["127.0.0.1:8001"]\n[state]\nfile = "{state_file}"\n')


def test_check_tells_a_state_files_folder_that_is_missing(folder: Path) -> None:
    with_state_file(folder, folder / "none" / "state.json")
    found = invoke("check")
    assert (found.exit_code, found.stderr) == (0, (
        f"warning: prefork_lb.toml: state.file: {folder}/none/state.json: there is no folder {folder}/none; "
        "the states of servers would not be saved\n"))
    (folder / "none").mkdir()
    assert invoke("check").stderr == ""


def test_check_tells_another_instance_that_writes_the_same_state_file(folder: Path) -> None:
    state_file = folder / "state.json"
    with_state_file(folder, state_file)
    lock = take(state_file, Holder(4712, 4711, "/etc/other.toml"))
    assert invoke("check").stderr == (
        f"warning: prefork_lb.toml: state.file: {state_file}: the instance of gunicorn master 4711 (/etc/other.toml) writes it, "
        "by its controller 4712; a second one's states would not be saved: give each instance a file of its own\n")
    os.close(lock)
    # The instance that runs by this file is no other one.
    lock = take(state_file, Holder(4712, 4711, str(folder / "prefork_lb.toml")))
    assert invoke("check").stderr == ""
    os.close(lock)


def test_check_prints_all_problems_to_stderr_and_fails(folder: Path) -> None:
    servers = '[\n  { address = "10.0.0.1:8001", weight = 0 },\n]\n'
    (folder / "bad.toml").write_text(f"[pools.web]\npolicy = 7\nservers = {servers}")
    found = invoke("check", "bad.toml")
    assert (found.exit_code, found.stdout) == (1, "")
    lines = found.stderr.splitlines()
    assert lines[0].startswith("bad.toml:2: pools.web.policy: ")
    assert lines[1].startswith("bad.toml:4: pools.web.servers[0].weight: 0 ")
    assert lines[2:] == ["2 problems"]


def test_check_fails_on_a_file_that_is_not_there() -> None:
    found = invoke("check", "gone.toml")
    assert found.exit_code == 1
    assert found.stderr.splitlines() == ["gone.toml: cannot be read: No such file or directory", "1 problem"]


def test_check_of_an_empty_name_takes_no_other_file(folder: Path) -> None:
    (folder / "prefork_lb.toml").write_text(GOOD)
    found = invoke("check", "")
    assert (found.exit_code, found.stderr.splitlines()[0]) == (1, "the name of the configuration's file is empty")


def test_check_in_a_folder_that_was_removed_says_so(folder: Path) -> None:
    folder.rmdir()
    found = invoke("check")
    assert found.exit_code == 1 and "no prefork_lb.toml in the working directory, which has been removed" in found.stderr


def test_check_goes_on_where_an_instance_cannot_be_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def visible_segments() -> Iterator[Segment]:
        raise SegmentError("/dev/shm/x: Too many open files")

    monkeypatch.setattr(check_room, "visible_segments", visible_segments)
    (folder / "prefork_lb.toml").write_text(GOOD)
    found = invoke("check")
    assert (found.exit_code, found.stderr) == (
        0, "warning: whether there is room cannot be seen: /dev/shm/x: Too many open files\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_without_room_is_told_in_a_line(folder: Path, unbuffered: str) -> None:
    (folder / "prefork_lb.toml").write_text(GOOD)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "prefork_lb", "check"], stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False, timeout=60, env={**clean_environment(), "PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: the output cannot be written: No space left on device"]


def test_check_reads_no_file_without_end() -> None:
    found = invoke("check", "/dev/zero")
    assert found.exit_code == 1 and found.stderr.startswith("/dev/zero: longer than 4 MiB")


def test_check_fails_when_there_is_no_configuration_at_all() -> None:
    found = invoke("check")
    assert found.exit_code == 1
    assert "PREFORK_LB_SERVERS=127.0.0.1:8001" in found.stderr


def test_check_warns_of_an_administration_interface_without_tls(folder: Path) -> None:
    (folder / "tokens").write_text("reader 0123456789abcdef\n")
    (folder / "new.toml").write_text('[pools.web]\nservers = ["10.0.0.1:80"]\n\n'
                                     '[admin]\nbind = "0.0.0.0:9900"\ntoken_file = "tokens"\n')
    found = invoke("check", "new.toml")
    assert found.exit_code == 0
    assert re.fullmatch(r"warning: new\.toml:5: admin\.bind: reached from other hosts, without TLS.*\n", found.stderr)
    assert found.stdout.startswith("new.toml: good\n")


# -- run --------------------------------------------------------------------------------------------------------------


class Replaced(Exception):
    """Stands for the moment at which this process would have become gunicorn."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command that `run` executes; for real it would end the tests (test_cli_run.py does that in a process)."""
    command: list[str] = []

    def execv(path: str, arguments: list[str]) -> None:
        assert path == arguments[0]
        command.extend(arguments)
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    return command


def run(*arguments: str) -> None:
    with pytest.raises(Replaced):
        invoke("run", *arguments)


GUNICORN = [sys.executable, "-m", "gunicorn", "-c", f"file:{CONF_FILE}"]


def test_run_becomes_gunicorn_with_our_settings(executed: list[str]) -> None:
    run()
    assert executed == [*GUNICORN, "prefork_lb:app"]


def test_run_passes_bind_workers_and_the_rest_on(executed: list[str]) -> None:
    run("--bind", "127.0.0.1:1", "--bind", "unix:/x", "--workers", "4", "--", "-k", "gevent", "--reload")
    options = ["--bind", "127.0.0.1:1", "--bind", "unix:/x", "--workers", "4", "-k", "gevent", "--reload"]
    assert executed == [*GUNICORN, *options, "prefork_lb:app"]


def test_run_hands_the_file_over_in_the_environment(executed: list[str]) -> None:
    run("--config", "some/where.toml")
    assert os.environ["PREFORK_LB_CONFIG"] == "some/where.toml"


def test_run_hands_servers_and_policy_over_in_the_environment(
    executed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFORK_LB_CONFIG", "of/the/environment.toml")  # the command line wins
    run("--server", "127.0.0.1:8001", "--server", "127.0.0.1:8002 weight=2", "--policy", "round-robin")
    assert os.environ["PREFORK_LB_SERVERS"] == "127.0.0.1:8001,127.0.0.1:8002 weight=2"
    assert os.environ["PREFORK_LB_POLICY"] == "round-robin"
    assert "PREFORK_LB_CONFIG" not in os.environ


def test_run_takes_no_policy_of_the_environment_with_servers(executed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFORK_LB_POLICY", "random")
    run("--server", "127.0.0.1:8001")
    assert "PREFORK_LB_POLICY" not in os.environ


def test_run_names_what_a_problem_came_from(executed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFORK_LB_BIND", "x")
    found = invoke("run", "--server", "127.0.0.1", "--policy", "none")
    assert sorted(line.split(":")[0] for line in found.stderr.splitlines()) == [
        "$PREFORK_LB_BIND", "--policy", "--server", "3 problems"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["--server", "127.0.0.1:1", "--config", "a.toml"], "--server and --config: give one of them"),
    (["--config", ""], "--config: the file's name is empty"),
    (["--server", " "], "--server: an address is empty"),
    (["--policy", "random"], "--policy goes with --server"),
    (["--workers", "0"], "--workers"),
    (["stray"], "'stray' is no option; gunicorn's options stand after --"),
])
def test_run_refuses_what_does_not_go_together(executed: list[str], arguments: list[str], message: str) -> None:
    found = invoke("run", *arguments)
    assert (found.exit_code, executed) == (2, [])
    assert message in found.stderr


def test_run_refuses_servers_that_a_file_would_hide(executed: list[str], folder: Path) -> None:
    (folder / "prefork_lb.toml").write_text(GOOD)
    found = invoke("run", "--server", "127.0.0.1:8001")
    assert (found.exit_code, executed) == (2, [])
    assert "--server: prefork_lb.toml is there" in found.stderr


def test_run_tells_what_is_wrong_with_a_server(executed: list[str]) -> None:
    found = invoke("run", "--server", "127.0.0.1:8001 weight=0", "--server", "127.0.0.1:99999")
    assert (found.exit_code, executed) == (1, [])
    lines = found.stderr.splitlines()
    assert lines[0].startswith("--server: pools.default.servers[0].weight: 0 ")
    assert lines[1].startswith("--server: pools.default.servers[1]")
    assert lines[-1] == "2 problems"
