"""The dashboard for Grafana, the alerts, and the examples of the documentation ask for metrics that are there."""
from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork_lb.observe.metric_table import FAMILIES, PREFIX

ROOT = Path(__file__).parents[3]
ALERTS, DASHBOARD, PAGE = ROOT / "deploy/prometheus-rules.yml", ROOT / "deploy/grafana-dashboard.json", ROOT / "docs/metrics.md"
ENDINGS = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
LABELS = {PREFIX + family.name + ending: {*family.labels, "instance", "le"}
          for family in FAMILIES for ending in ENDINGS.get(family.kind, ("",))}

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus")


def expressions(part: Any) -> Iterator[str]:
    """Every expression of the dashboard."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("expr", "definition") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(part, list):
        for value in part:
            yield from expressions(value)


def examples() -> list[str]:
    return re.findall(r"^\| [^|`]+ \| `(.*prefork_lb_.*)` \|$", PAGE.read_text(), re.MULTILINE)


def test_they_ask_for_metrics_and_labels_that_are_there() -> None:
    asked = [*expressions(json.loads(DASHBOARD.read_text())), *examples(),
             *(line for line in ALERTS.read_text().splitlines() if "prefork_lb_" in line)]
    assert len(asked) > 40 and len(examples()) == 6
    for expression in asked:
        for name, selector in re.findall(r"(prefork_lb_\w+)(?:{([^}]*)})?", expression):
            assert name in LABELS, expression
            assert set(re.findall(r"(\w+)(?:=~|!=|=)", selector or "")) <= LABELS[name], expression


def test_the_dashboards_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


@needs_promtool
def test_the_alerts_are_valid_and_fire_when_they_should() -> None:
    for arguments in (["check", "rules", str(ALERTS)], ["test", "rules", str(Path(__file__).with_name("alerts.yml"))]):
        done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_reads_every_expression_of_the_dashboard_and_the_page(tmp_path: Path) -> None:
    asked = [expression.replace("$__rate_interval", "5m") for expression in expressions(json.loads(DASHBOARD.read_text()))
             if not expression.startswith("label_values")] + examples()
    rules = [{"record": f"number:{number}", "expr": expression} for number, expression in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
