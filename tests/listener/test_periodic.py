"""Schedules declared in code: read with their handlers, and whatever is wrong with one is told at start by name."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from listener.errors import ConfigError
from listener.periodic import Declared
from listener.registry import load
from listener.timetable import Rule
from tests.listener.packages import Package, package

__all__ = ["package"]

HEAD = '''
"""A handler."""
from datetime import timedelta
from uuid import UUID
from listener import Payload, Queue, cron, every, handler

class Words(Payload):
    full: bool = False
    at: str | None = None

'''


def handlers(above: str, name: str = "report", payload: str = "Words") -> dict[str, str]:
    body = f"@handler(Queue.MAINTENANCE)\nasync def {name}(payload: {payload}) -> None: ...\n"
    return {f"maintenance/{name}.py": f"{HEAD}{above}\n{body}"}


def test_what_stands_above_a_handler_becomes_its_schedules(package: Package) -> None:
    above = (
        '@every(timedelta(minutes=5), missed="skip")\n'
        '@cron("0 8 * * mon-fri", timezone="Europe/Berlin", name="morning", data={"full": True}, slot_as="at")'
    )
    assert load(package(handlers(above))).schedules == (
        Declared(Rule(every=timedelta(minutes=5)), "skip", "report", queue="maintenance", type="report"),
        Declared(
            Rule(cron="0 8 * * mon-fri", timezone="Europe/Berlin"),
            "once",
            "morning",
            {"full": True},
            "at",
            "maintenance",
            "report",
        ),
    )


@pytest.mark.parametrize(
    ("above", "words"),
    [
        (
            "@every(timedelta(seconds=0.5))",
            "maintenance/report: its schedule report must come every so many whole",
        ),
        ("@every(timedelta(0))", "must come every so many whole seconds"),
        ("@every(timedelta(days=400))", "a year at the most"),
        ('@cron("61 * * * *")', "its schedule report names no moments: cron is not understood (Bad minute)"),
        ('@cron("0 0 30 2 *")', "names no moments"),
        ('@cron("0 0 * * *", timezone="Mars/Olympus")', "the time zone Mars/Olympus is not known here"),
        ('@every(timedelta(1), missed="twice")', "must say missed as skip, once or all"),
        ('@every(timedelta(1), overlap="wait")', "must say overlap as allow or skip"),
        ('@every(timedelta(1), name="two words")', "its schedule's name must be"),
        (
            '@every(timedelta(1), data={"full": "hidden", "other": 1})',
            "data that its payload refuses (full, other)",
        ),
        ('@every(timedelta(1), slot_as="moment")', "data that its payload refuses (moment)"),
        ("@every(timedelta(1))\n@every(timedelta(2))", "Two schedules are called report"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_told_at_start(package: Package, above: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load(package(handlers(above)))
    assert "hidden" not in str(caught.value)


def test_a_schedule_above_no_handler_is_told(package: Package) -> None:
    files = {
        "maintenance/report.py": f"{HEAD}@every(timedelta(1))\nasync def report(payload: Words) -> None: ...\n"
    }
    with pytest.raises(ConfigError, match="a schedule stands above what is no handler"):
        load(package(files))


def test_two_handlers_may_not_share_a_schedules_name(package: Package) -> None:
    files = handlers('@every(timedelta(1), name="same")') | handlers(
        '@every(timedelta(1), name="same")', "other"
    )
    with pytest.raises(ConfigError, match="Two schedules are called same"):
        load(package(files))


def test_the_example_of_the_page_works(package: Package, checkout: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (checkout / "docs" / "schedules.md").read_text(), re.DOTALL)
    schedules = load(package({"maintenance/report.py": f'"""Reports."""\n{code}'})).schedules
    assert [(one.name, one.missed, one.overlap, one.slot_as) for one in schedules] == [
        ("report", "once", "skip", None),
        ("morning_report", "all", "allow", "at"),
    ]
