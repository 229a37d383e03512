"""What docs/ says of the metrics is what there is: the table, the alerts with their tests, and the dashboard."""

import json
import re
import subprocess
from itertools import combinations
from typing import Any, cast

import pytest

from listener.telemetry.catalogue import METRICS, Kind
from tests.house.tree import ROOT
from tests.skips import PROMETHEUS

DOCS = ROOT / "docs"
ROW = re.compile(r"\| `(\w+)` \| `([\w.]+)` \| (\w+) \| (.*?) \| (.*?) \|")
ALERT = re.compile(r"alert: (\w+)")
NAME = re.compile(r"\bpulse_\w+")
EXPRESSIONS = re.compile(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)")


def known_names() -> set[str]:
    """As they stand in a query: a histogram has three."""
    names = {metric.name for metric in METRICS.values() if metric.kind is not Kind.HISTOGRAM}
    for metric in METRICS.values():
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
    return names


def alert_expressions() -> list[str]:
    text = (DOCS / "alerts.rules.yml").read_text()
    return [(block or line).strip() for block, line in EXPRESSIONS.findall(text)]


def panels() -> list[dict[str, Any]]:
    board = json.loads((DOCS / "grafana.json").read_text())
    return cast("list[dict[str, Any]]", board["panels"])


def board_expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def test_the_table_says_what_there_is() -> None:
    rows = ROW.findall((DOCS / "metrics.md").read_text())
    told = [
        (name, dotted, kind, tuple(re.findall(r"\w+", labels)), text)
        for name, dotted, kind, labels, text in rows
    ]
    assert told == [
        (metric.name, metric.dotted, metric.kind.value, metric.labels, metric.help)
        for metric in METRICS.values()
    ]


def test_every_alert_has_a_row_that_says_what_to_do() -> None:
    alerts = ALERT.findall((DOCS / "alerts.rules.yml").read_text())
    assert len(set(alerts)) == len(alerts) == len(alert_expressions()) >= 12
    page = (DOCS / "metrics.md").read_text().partition("## What to do")[2]
    assert set(re.findall(r"\bPulse[A-Z]\w+", page)) == set(alerts)


def test_every_alert_is_tested_both_ways() -> None:
    text = (DOCS / "alerts.tests.yml").read_text()
    for alert in ALERT.findall((DOCS / "alerts.rules.yml").read_text()):
        quiet = re.findall(rf"alertname: {alert}, exp_alerts: \[\]", text)
        loud = re.findall(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", text)
        assert quiet, f"{alert} is never seen quiet"
        assert loud, f"{alert} is never seen firing"


def test_alerts_and_panels_ask_for_what_there_is() -> None:
    known = known_names()
    for expression in alert_expressions() + board_expressions():
        assert set(NAME.findall(expression)) <= known, expression


def test_what_each_process_tells_of_the_queues_is_never_added_up() -> None:
    for expression in alert_expressions() + board_expressions():
        for name in ("pulse_queue_", "pulse_dead_letters"):
            for match in re.finditer(name, expression):
                before = expression[: match.start()]
                assert re.search(r"(max|min) by \(queue\) \($", before), expression


def test_the_dashboard_shows_every_metric() -> None:
    asked = {name for expression in board_expressions() for name in NAME.findall(expression)}
    shown = {re.sub("_(bucket|count|sum)$", "", name) for name in asked}
    assert shown == set(METRICS)


def test_the_panels_of_the_dashboard_lie_beside_each_other() -> None:
    places = [(panel["gridPos"], panel["title"]) for panel in panels()]
    assert len({panel["id"] for panel in panels()}) == len(places)
    for (one, first), (other, second) in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, f"{first} lies over {second}"
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place, _ in places)
    for panel in panels():
        assert panel["type"] == "row" or panel["description"].endswith(".")


@pytest.fixture
def promtool() -> str:
    return str(PROMETHEUS.path().with_name("promtool"))


def test_prometheus_takes_the_rules_and_finds_that_they_do_what_they_say(promtool: str) -> None:
    for words in (["check", "rules", "alerts.rules.yml"], ["test", "rules", "alerts.tests.yml"]):
        done = subprocess.run([promtool, *words], cwd=DOCS, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_scrape_configuration_of_the_page_is_one(promtool: str, tmp_path: Any) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "metrics.md").read_text(), flags=re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(block)
    (tmp_path / "alerts.rules.yml").write_text((DOCS / "alerts.rules.yml").read_text())
    words = [promtool, "check", "config", "prometheus.yml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr
