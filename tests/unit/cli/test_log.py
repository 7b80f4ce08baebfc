"""`prefork-lb log`."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from prefork_lb.cli.main import main
from prefork_lb.errors import ConnectFailed
from prefork_lb.logs.lines import JSONLines
from tests.unit.logs.records import record
from tests.unit.upstream.parts import new_server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    failed = record(target=b"/b", server=new_server(1), error=ConnectFailed("refused"))
    failed.failures = ("127.0.0.1:8001: connect: refused",)
    bad = JSONLines()(failed).replace(b'"pid"', b'"request_id":"abc","pid"')
    path.write_bytes(JSONLines()(record(target=b"/a", server=new_server(0))) + bad + b"torn\n")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


def test_in_a_pipe_each_request_is_one_whole_line(file: Path) -> None:
    result = run(file)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.split(" ", 1)[1] == "200 GET http://a.test/a web 127.0.0.1:8000 16.0ms - finished"
    assert second.split(" ", 1)[1] == (
        "502 GET http://a.test/b web 127.0.0.1:8001 16.0ms abc server failed: connect: refused")
    assert result.stderr == "1 line is no JSON of an access log, and left out\n"


def test_lines_are_filtered_and_handed_on_as_they_are(file: Path) -> None:
    result = run("--status", "5xx", "--server", "127.0.0.1:8001", "--slow", "1ms", "--json", file)
    assert json.loads(result.stdout)["request_id"] == "abc"
    assert run("--status", "404,5xx", "--path", "/a", file).stdout == ""


def test_why_a_request_got_its_answer(file: Path) -> None:
    text = run("--request", "abc", file).stdout
    assert "http://a.test/b: 502, server failed" in text
    assert "why: connect: refused" in text and "failed attempt: 127.0.0.1:8001: connect: refused" in text
    assert "server: 127.0.0.1:8001 of the pool web, picked by: policy" in text and "total 16 ms" in text


def test_a_summary(file: Path) -> None:
    text = run("--summary", file).stdout
    assert text.startswith("2 requests from ") and "status: 2xx 1, 5xx 1" in text and "p99 16.0" in text
    assert any(line.split()[:5] == ["web", "127.0.0.1:8001", "1", "1", "1"] for line in text.splitlines()), text


def test_what_a_log_holds_commands_no_terminal(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    entry = json.loads(JSONLines()(record())) | {"target": "/\x1b[2J\n\x9b", "error": "\x1b"}
    path.write_text(json.dumps(entry) + "\n")
    for arguments in ((), ("--request", "r"), ("--summary",)):
        entry["request_id"] = "r"
        path.write_text(json.dumps(entry) + "\n")
        text = run(*arguments, path).stdout
        assert text and text.replace("\n", "").isprintable()


@pytest.mark.parametrize("arguments", [("--status", "6xx"), ("--slow", "5"), ("--since", "then"), ("-f", "a", "b"),
                                       ("-f", "--summary")])
def test_what_makes_no_sense_is_said(arguments: tuple[str, ...], file: Path) -> None:
    assert run(*arguments, file).exit_code == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = run(tmp_path / "none")
    assert result.exit_code == 1 and "none: No such file or directory" in result.stderr
