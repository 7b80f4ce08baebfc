"""The section `[tracing]`."""
from __future__ import annotations

from pathlib import Path

import pytest

from prefork_lb.config import tracing_rules
from prefork_lb.config.load import load
from prefork_lb.errors import ConfigError

POOL = '[pools.web]\nservers = ["127.0.0.1:8001"]\n'


def problems(folder: Path, text: str) -> list[str]:
    file = folder / "a.toml"
    file.write_text(f"{POOL}[tracing]\n{text}\n")
    try:
        load(file)
    except ConfigError as exc:
        return [problem.removeprefix(f"{file}:") for problem in exc.problems]
    return []


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "https://collector.internal/otlp", "http://[::1]:4318/"])
def test_a_collector_needs_the_extra(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_rules, "find_spec", lambda name: None)
    (problem,) = problems(tmp_path, f'otlp = "{url}"')
    assert problem == "4: tracing.otlp: spans need OpenTelemetry's packages; install prefork_lb[otel]"
    monkeypatch.setattr(tracing_rules, "find_spec", lambda name: object())
    assert problems(tmp_path, f'otlp = "{url}"') == []


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "grpc://a:4317", "http://", "http://a:0", "http://a:99999", "http://a/?b"])
def test_what_is_no_collector_is_told(tmp_path: Path, url: str) -> None:
    (problem,) = problems(tmp_path, f'otlp = "{url}"')
    assert problem.startswith("4: tracing.otlp: ") and "is no address of a collector; expected http://HOST:4318" in problem


def test_without_a_collector_nothing_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_rules, "find_spec", lambda name: None)
    assert problems(tmp_path, "sample = 0.5") == []
