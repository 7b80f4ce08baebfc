"""Configurations from files and from the environment: where they are found, and all that can be wrong with them."""
from __future__ import annotations

import os
import threading
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from prefork_lb.config import current
from prefork_lb.config.copies import Copies
from prefork_lb.config.load import find_and_load, load
from prefork_lb.config.positions import key_lines
from prefork_lb.config.reference import reference
from prefork_lb.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
GOOD = '[pools.web]\nservers = ["127.0.0.1:8001"]\n'


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with `text`, without the file's name: `LINE: KEY: WHAT`."""
    file = tmp_path / "x.toml"
    file.write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [problem.removeprefix(f"{file}:") for problem in caught.value.problems]


def test_everything_has_a_default_but_the_servers(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GOOD)
    config = load(tmp_path / "a.toml")
    assert config.pools["web"].policy == "least-connections"
    assert config.pools["web"].servers[0].weight == 1
    assert config.listen.bind == ("127.0.0.1:8000",) and config.listen.worker_count() >= 1
    assert (config.proxy.timeouts.connect, config.proxy.timeouts.response, config.proxy.timeouts.idle) == (3.0, 60.0, 60.0)
    assert config.admin is None and config.routes == ()


def test_the_places_are_looked_at_in_order(tmp_path: Path) -> None:
    (tmp_path / "named.toml").write_text(GOOD.replace("web", "named"))
    environ = {"PREFORK_LB_SERVERS": "127.0.0.1:1"}
    assert list(load(environ=environ, cwd=tmp_path).pools) == ["default"]
    (tmp_path / "prefork_lb.toml").write_text(GOOD.replace("web", "local"))
    assert list(load(environ=environ, cwd=tmp_path).pools) == ["local"]
    environ["PREFORK_LB_CONFIG"] = str(tmp_path / "named.toml")
    assert list(load(environ=environ, cwd=tmp_path).pools) == ["named"]
    assert list(load(tmp_path / "prefork_lb.toml", environ=environ).pools) == ["local"]


def test_without_any_configuration_the_places_and_the_way_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"PREFORK_LB_CONFIG.*prefork_lb\.toml.*PREFORK_LB_SERVERS="):
        load(environ={}, cwd=tmp_path)


def test_servers_from_the_environment_take_the_keys_of_a_server() -> None:
    config = load(environ={"PREFORK_LB_SERVERS": "127.0.0.1:1, [::1]:2 weight=3 max_connections=4 backup=true",
                           "PREFORK_LB_POLICY": "first"}, cwd=Path("/nowhere"))
    first, second = config.pools["default"].servers
    assert (first.address, first.weight) == ("127.0.0.1:1", 1)
    assert (second.address, second.weight, second.max_connections, second.backup) == ("[::1]:2", 3, 4, True)
    assert config.pools["default"].policy == "first"
    with pytest.raises(ConfigError, match=r"servers\[0\]\.wieght: unknown key.*did you mean weight"):
        load(environ={"PREFORK_LB_SERVERS": "127.0.0.1:1 wieght=2"}, cwd=Path("/nowhere"))


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, """[listen]
bind = ["0.0.0.0:99999"]
workers = true
[proxy.timeouts]
conect = 3
idle = -1
[pools.web]
policy = "least-conections"
servers = [
  "10.0.0.1:8001",
  { address = "10.0.0.2:8001", weight = 0 },
  { adress = "x" },
  7,
]
[[routes]]
pool = "wep"
""")
    assert [line.split(": ")[:2] for line in found] == [
        ["2", "listen.bind[0]"], ["3", "listen.workers"], ["5", "proxy.timeouts.conect"], ["6", "proxy.timeouts.idle"],
        ["8", "pools.web.policy"], ["11", "pools.web.servers[1].weight"], ["12", "pools.web.servers[2].adress"],
        ["12", "pools.web.servers[2].address"], ["13", "pools.web.servers[3]"], ["16", "routes[0].pool"]]
    text = "\n".join(found)
    for hint in ("did you mean connect?", "did you mean least-connections?", "did you mean address?", "did you mean web?",
                 "0 is not in 1..1000", "-1 is not above 0", "expected a whole number or \"auto\""):
        assert hint in text, hint


@pytest.mark.parametrize(("text", "expected"), [
    ("", "pools: missing"),
    ("[pools]\n", "pools: is empty"),
    ("[pools.web]\nservers = []\n", "servers: is empty"),
    ("[pools.web]\nservers = 3\n", "found 3, expected a list"),
    ("[pools.web]\nservers = [\"a:1\", \"a:1\"]\n", "the same server as servers[0]"),
    ("[pools.web]\nservers = [{address=\"a:1\", backup=true}]\n", "every server is a backup"),
    ("[pools.web]\nservers = [\"a:1\"]\n[pools.b]\nservers = [\"a:1\"]\n", "2 pools and no [[routes]]"),
    (GOOD + "policy = \"a b:C\"\n", "is no policy"),
    (GOOD + "[proxy]\ntrusted_proxies = [\"10.0.0.0/33\"]\n", "neither an address nor a network"),
    (GOOD + "[proxy]\nvia = \"a b\"\n", "proxy.via"),
    (GOOD + "[proxy.timeouts]\nidle = nan\n", "proxy.timeouts.idle"),
    (GOOD + "[proxy.timeouts]\nidle = inf\n", "proxy.timeouts.idle"),
    (GOOD + "[[routes]]\npool = \"web\"\nhosts = [\"*foo\"]\npaths = [\"x\"]\n", "is no host"),
    (GOOD + "[[routes]]\npool = \"web\"\npaths = [\"x\"]\n", "is no path"),
    (GOOD + "[admin]\n", "admin.bind: missing"),
    ("[pools.web]\nservers = [\"unix:relative\"]\n", "no unix socket"),
    (GOOD + "[pools.web.health]\npath = \"/\\n\"\n", "health.path"),
    (GOOD + "[pools.web.health]\nmethod = \"GET\\n\"\n", "health.method"),
    (GOOD + "[pools.web.health]\nhost = \"a\\n\"\n", "health.host"),
    (GOOD + "[proxy]\nvia = \"a\\n\"\n", "proxy.via"),
    (GOOD + "[[routes]]\npool = \"web\"\npaths = [\"/\\n\"]\n", "is no path"),
    (GOOD + "[[routes]]\npool = \"web\"\nhosts = [\"a\\n\"]\n", "is no host"),
    (GOOD + "[pools.web.ejection]\nstatuses = [404]\n", "ejection.statuses[0]: 404 is not in 429..599"),
    (GOOD + "[pools.web.ejection]\nstatuses = [\"400-599\"]\n", "'400-599' is not in 429..599"),
    (GOOD + "[pools.web.retries]\nstatuses = [101]\n", "retries.statuses[0]: 101 is not in 200..599"),
    (GOOD + "key = \"source\"\n", "the policy 'least-connections' has no use for a key"),
    (GOOD + "policy = \"site:Own\"\nkey = \"sourse\"\n", "'sourse' is no key; expected one of"),
    (GOOD + "policy = \"site:Own\"\nkey = \"sourse\"\n", "did you mean source?"),
    (GOOD + "policy = \"site:Own\"\nkey = \"source:x\"\n", "'source:x' is no key"),
    (GOOD + "policy = \"site:Own\"\nkey = \"cookie\"\n", "'cookie' is no key"),
    (GOOD + "policy = \"site:Own\"\nkey = \"header:\"\n", "'' is no name of a header field"),
    (GOOD + "policy = \"site:Own\"\nkey = \"cookie:a b\"\n", "'a b' is no name of a cookie"),
    (GOOD + "policy = \"site:Own\"\nkey = \"query:\"\n", "'' is no name of a parameter"),
    (GOOD + "policy = \"site:Own\"\nkey = \"query:a&b\"\n", "'a&b' is no name of a parameter"),
    (GOOD + "policy = \"hash\"\n", "'hash' needs a key"),
    (GOOD + "policy = \"consistent-hash\"\nkey = \"uri\"\ncompatible = \"nginx-ketama\"\nload_factor = 2\n",
     "'nginx-ketama' picks whatever is in flight"),
    (GOOD + "load_factor = 2\n", "the policy 'least-connections' has no load factor"),
    (GOOD + "load_factor = 0.5\n", "0.5 is less than the servers' share"),
    (GOOD + "compatible = \"nginx-ketama\"\n", "'nginx-ketama' is for policy = \"consistent-hash\""),
    (GOOD + "compatible = \"haproxy\"\n", "pools.web.compatible"),
    ("[pools.web\n", "not TOML"),
    ("x = " + "9" * 5000 + "\n", "not TOML"),
])
def test_what_cannot_work_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert any(expected in problem for problem in found), found


def test_a_policy_of_ones_own_may_have_a_key(tmp_path: Path) -> None:
    for key in ("source", "uri", "path", "header:X-Tenant", "cookie:id", "query:q"):
        (tmp_path / "a.toml").write_text(GOOD + f'policy = "site:Own"\nkey = "{key}"\n')
        assert load(tmp_path / "a.toml").pools["web"].key == key


@pytest.mark.parametrize("text", [
    "[pools.web]\nservers = [0x" + "F" * 6000 + "]\n",
    GOOD + "[listen]\nworkers = 0x" + "F" * 6000 + "\n",
    GOOD + '[pools.web.health]\npattern = "a{99999999999}"\n',
    GOOD + '[pools.web.health]\npattern = "' + "(" * 2000 + ")" * 2000 + '"\n',
], ids=["server", "workers", "repetition", "nesting"])
def test_no_value_of_a_file_ends_the_master(tmp_path: Path, text: str) -> None:
    """Any error but ConfigError would end gunicorn's master at a reload, and with it an instance that runs."""
    assert [len(problem) < 6000 for problem in problems(tmp_path, text)] == [True]


@pytest.mark.parametrize(("text", "place"), [
    ('[pools."a.b"]\nservers = []\n', '2: pools."a.b".servers'),
    (GOOD + '[pools."a\\"\\\\"]\nservers = []\n', '4: pools."a\\"\\\\".servers'),
    (GOOD + '[listen]\n"a\\u001b[31m\\nb" = 1\n', '4: listen."a\\u001b[31m\\u000ab"'),
    (GOOD + '[listen]\n"" = 1\n', '4: listen.""'),
    (GOOD + f'[listen]\n{"k" * 5000} = 1\n', f'4: listen.{"k" * 61}...'),
])
def test_keys_are_named_as_toml_writes_them(tmp_path: Path, text: str, place: str) -> None:
    assert any(problem.startswith(f"{place}: ") for problem in problems(tmp_path, text)), problems(tmp_path, text)


def test_no_message_controls_the_terminal_or_takes_two_lines(tmp_path: Path) -> None:
    folder = tmp_path / "a\x1bb\nc"
    folder.mkdir()
    nasty = '"a\\u001b\\nb\\u202e"'
    text = (f"x = {nasty}\n[listen]\nbind = [{nasty}]\n[pools.{nasty}]\npolicy = {nasty}\nservers = [{nasty}]\n"
            f"[pools.{nasty}.tls]\nca_file = {nasty}\ncertificate = {nasty}\n[[routes]]\npool = {nasty}\nhosts = [{nasty}]\n")
    (folder / "x.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(folder / "x.toml")
    assert len(caught.value.problems) > 7
    assert [problem for problem in caught.value.problems if not problem.isprintable()] == []


@pytest.mark.parametrize("text", [
    GOOD + "[listen]\nbind = [{}]\n",
    "[pools.web]\nservers = [{}]\n",
    '[pools.web]\nservers = ["a:1", "a:1"]\npolicy = {}\n',
    GOOD + "[pools.{}]\n",
    GOOD + "[[routes]]\npool = {}\n",
    GOOD + "[[routes]]\npool = 'web'\nhosts = [{0}]\npaths = [{0}]\n",
    GOOD + "[proxy]\ntrusted_proxies = [{}]\n",
    GOOD + "[pools.web.retries]\nstatuses = [{}]\n",
    GOOD + "[pools.web.health]\npattern = {}\nfall = 0\n",
    GOOD + "[pools.web.tls]\nserver_name = {}\n",
])
@pytest.mark.parametrize("value", ["(?P<" + "x" * 5000, "https://" + "x" * 5000 + "/", "[" + "x" * 5000, "a:" + "9" * 5000])
def test_no_message_shows_a_long_value_whole(tmp_path: Path, text: str, value: str) -> None:
    assert all(len(problem) < 500 for problem in problems(tmp_path, text.format(f'"{value}"')))


def test_an_empty_list_is_told_once(tmp_path: Path) -> None:
    assert problems(tmp_path, "[pools.web]\nservers = []\n") == ["2: pools.web.servers: is empty; expected at least one"]
    assert problems(tmp_path, "[pools]\n") == ["1: pools: is empty; expected at least one"]


@pytest.mark.parametrize(("environ", "expected"), [
    ({"PREFORK_LB_SERVERS": ","}, "$PREFORK_LB_SERVERS: pools.default.servers: is empty; expected at least one"),
    ({"PREFORK_LB_SERVERS": "a:1 weight=" + "9" * 5000},
     "$PREFORK_LB_SERVERS: pools.default.servers[0].weight: a number of hundreds of digits is not in 1..1000"),
    ({"PREFORK_LB_SERVERS": "a:1", "PREFORK_LB_BIND": "x"},
     "$PREFORK_LB_BIND: listen.bind[0]: 'x' has no port; expected HOST:PORT, as in x:8001"),
    ({"PREFORK_LB_SERVERS": "a:1", "PREFORK_LB_BIND": ","}, "$PREFORK_LB_BIND: listen.bind: is empty; expected at least one"),
    ({"PREFORK_LB_SERVERS": "a:1", "PREFORK_LB_POLICY": "first "},
     "$PREFORK_LB_POLICY: pools.default.policy: 'first ' is no policy; expected one of"),
])
def test_a_problem_of_the_environment_is_told_once_by_its_variable(environ: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ=environ, cwd=Path("/nowhere"))
    (problem,) = caught.value.problems
    assert problem.startswith(expected)


@pytest.mark.parametrize("bind", ["https://0.0.0.0:1", "http://0.0.0.0", "HTTP://app:80"])
def test_an_address_to_listen_on_has_no_scheme(tmp_path: Path, bind: str) -> None:
    (problem,) = problems(tmp_path, GOOD + f'[listen]\nbind = ["{bind}"]\n')
    assert problem.startswith("4: listen.bind[0]: ") and "has a scheme" in problem


def test_a_file_that_cannot_be_read_is_a_problem_too(tmp_path: Path) -> None:
    for name, expected in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory"), ("a\0b", "cannot be read")):
        with pytest.raises(ConfigError, match=expected):
            load(name)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "latin.toml")


def with_admin(folder: Path, bind: str) -> str:
    """A configuration whose administration interface is reached from elsewhere, which a notice tells."""
    (folder / "tokens").write_text("operator 0123456789abcdef\n")
    return GOOD + f'[admin]\nbind = "{bind}"\ntoken_file = "{folder / "tokens"}"\n'


@pytest.mark.parametrize(("bind", "noticed"), [("0.0.0.0:9900", True), ("lb.example:9900", True), ("127.0.0.1:9900", False),
                                               ("[::1]:9900", False), ("localhost:9900", False), ("unix:/run/admin", False)])
def test_an_administration_interface_beyond_this_host_is_noticed(tmp_path: Path, bind: str, noticed: bool) -> None:
    file = tmp_path / "a.toml"
    file.write_text(with_admin(tmp_path, bind))
    assert [notice.split(": ")[0:2] for notice in find_and_load(file).notices] == [[f"{file}:4", "admin.bind"]] * noticed


def test_a_file_that_went_bad_leaves_the_last_good_one_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("prefork_lb.config.current._last_good", None)
    file = tmp_path / "a.toml"
    monkeypatch.setenv("PREFORK_LB_CONFIG", str(file))
    with pytest.raises(ConfigError):
        current.load_or_keep()
    file.write_text(GOOD)
    good = current.load_or_keep()
    file.write_text("[pools.web")
    assert current.load_or_keep() is good
    assert "stays in force" in caplog.text


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(with_admin(tmp_path, "0.0.0.0:9900"), encoding="utf-8-sig")
    config, notices = find_and_load(file)
    assert list(config.pools) == ["web"] and notices[0].startswith(f"{file}:4: admin.bind")


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """A pipe gives its text once, as a file does that an editor writes anew meanwhile."""
    pipe = tmp_path / "a.toml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(with_admin(tmp_path, "0.0.0.0:9900"),))
    writer.start()
    _, notices = find_and_load(pipe)
    writer.join(10)
    assert notices[0].startswith(f"{pipe}:4: admin.bind")


def test_a_worker_goes_by_what_its_master_has_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.toml"
    monkeypatch.setenv("PREFORK_LB_CONFIG", str(file))
    for name, value in (("_last_good", None), ("_master", 0)):
        monkeypatch.setattr(current, name, value)
    file.write_text(GOOD)
    master = current.load_as_master()
    file.write_text(GOOD.replace("web", "other"))
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    assert current.load_as_worker() is master
    monkeypatch.setattr(current, "_master", 0)  # a master without our settings
    assert list(current.load_as_worker().pools) == ["other"]


class Mastered(NamedTuple):
    """A master's configuration, which names a file with a secret."""

    file: Path
    secret: Path


@pytest.fixture
def mastered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mastered:
    found = Mastered(tmp_path / "a.toml", tmp_path / "secret")
    monkeypatch.setenv("PREFORK_LB_CONFIG", str(found.file))
    for name, value in (("_last_good", None), ("_master", 0), ("_copies", None)):
        monkeypatch.setattr(current, name, value)
    found.secret.write_text("the first of all secrets")
    found.file.write_text(f'{GOOD}[pools.web.sticky]\nsecret_file = "{found.secret}"\n')
    return found


def test_a_worker_has_the_files_that_its_master_has_read(mastered: Mastered, tmp_path: Path) -> None:
    secret = mastered.secret
    assert current.path_of(str(secret)) == str(secret), "no master has read it"
    good = current.load_as_master()
    secret.write_text("a second one, half written")
    assert current.secrets_in(str(secret)) == (b"the first of all secrets",)
    secret.unlink()
    assert current.load_as_master() is good
    assert current.secrets_in(str(secret)) == (b"the first of all secrets",)
    secret.write_text("the one of the next reload")
    current.load_as_master()
    assert current.secrets_in(str(secret)) == (b"the one of the next reload",)
    with pytest.raises(ValueError, match="cannot be read"):
        current.secrets_in(str(tmp_path / "other"))


def test_copies_of_files_cost_no_descriptor_after_the_next_reload(mastered: Mastered) -> None:
    current.load_as_master()
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        current.load_as_master()
    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_changes_while_it_is_read_is_a_bad_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the first of all secrets")
    (tmp_path / "a.toml").write_text(f'{GOOD}[pools.web.sticky]\nsecret_file = "{secret}"\n')
    config, _ = find_and_load(tmp_path / "a.toml")
    secret.write_text("half")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ConfigError, match="has changed while it was read: .*the secret has 4 characters"):
        Copies(config)
    assert os.listdir("/proc/self/fd") == before


MIXED = """
a.b."c d" = 1
list = [ 1, # one
  [2, 3],
  { x = 1, y = [
    4 ] } ]
text = \"\"\"
[not.a.table]
x = "1" \"\"\"
raw = '''
y = 2'''
when = 1979-05-27 07:32:00
[t.u]
v = "a\\"]b"
[[t.list]]
k = 'x'
[t.list.sub]
z = 1
[[t.list]]
k.m = true
"""


def every_path(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*path, key), *every_path(inner, (*path, key)))]


@pytest.mark.parametrize("newline", ["\n"])
def test_every_key_and_element_has_its_line(newline: str) -> None:
    lines = key_lines(MIXED.replace("\n", newline))
    assert set(every_path(tomllib.loads(MIXED))) <= set(lines)
    rows = MIXED.split("\n")
    for path, line in lines.items():
        key = next((part for part in reversed(path) if isinstance(part, str)), "")
        if isinstance(path[-1], str):
            assert key in rows[line - 1], (path, line)
    assert (lines[("list", 1, 0)], lines[("list", 2, "y", 0)], lines[("t", "list", 1, "k", "m")]) == (4, 6, 20)


def test_the_reference_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference()


def test_the_sample_is_good() -> None:
    assert list(load(ROOT / "deploy" / "prefork_lb.toml").pools) == ["web"]
