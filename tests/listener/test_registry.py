"""Handlers are found beside their code; what does not fit is told at the start, all of it, by file."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from listener.errors import ConfigError
from listener.jobs import Job
from listener.registry import DEFAULT_TIMEOUT, Payload, load
from tests.house.tree import ROOT
from tests.listener.packages import Package, package

__all__ = ["package"]

HEAD = """
from datetime import timedelta
from listener import Cancel, Delivery, Job, NewJob, Payload, Setting, Settings, handler, resource, webhook

class Order(Payload):
    order_id: int = 0
"""
GOOD = {
    "broker/execute_order.py": HEAD
    + """
@handler("broker", timeout=timedelta(seconds=9))
async def execute_order(payload: Order, *, job: Job, text: str) -> None: ...
""",
    "alerts/email.py": HEAD
    + """
@handler("alerts")
async def email(payload: Order, *, number: int) -> None: ...

@webhook("/webhooks/mail", Setting("MAIL_SECRET", "there"))
def bounced(delivery: Delivery, settings: Settings) -> NewJob: ...
""",
    "alerts/helpers.py": "from .email import email, bounced",
    "clients/mail.py": '"""No handler in here."""',
    "resources.py": HEAD
    + """
from collections.abc import AsyncIterator

@resource(Setting("TEXT_KEY", "there"))
async def text(settings: Settings) -> AsyncIterator[str]:
    yield settings["TEXT_KEY"]

@resource(Setting("NUMBER_KEY", "there"))
async def number(settings: Settings) -> AsyncIterator[int]:
    yield 1
""",
}


def problems(name: str, queues: list[str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        load(name, queues)
    return refused.value.problems


def test_everything_is_found_once(package: Package) -> None:
    registry = load(package(GOOD))
    assert sorted(registry.handlers) == [("alerts", "email"), ("broker", "execute_order")]
    assert registry.queues == ["alerts", "broker"]
    assert registry.types("alerts") == ["email"]
    assert registry.types("payment") == []
    assert [one.path for one in registry.webhooks] == ["/webhooks/mail"]
    order = registry.handlers["broker", "execute_order"]
    assert order.timeout == timedelta(seconds=9)
    assert dict(order.wants) == {"job": Job, "text": str}
    assert registry.handlers["alerts", "email"].timeout == DEFAULT_TIMEOUT
    assert [one.name for one in registry.handler_settings] == ["NUMBER_KEY", "TEXT_KEY"]
    assert [one.name for one in registry.webhook_settings] == ["MAIL_SECRET"]


def test_a_process_of_one_queue_needs_no_other_queues_resources(package: Package) -> None:
    registry = load(package({**GOOD, "alerts/broken.py": "import there_is_no_such_module"}), ["broker"])
    assert registry.queues == ["broker"]
    assert [one.name for one in registry.handler_settings] == ["TEXT_KEY"]
    assert registry.webhooks == ()


def test_a_queue_without_handlers_is_told(package: Package) -> None:
    told = problems(package(GOOD), ["broker", "reports", "clients"])
    assert [text.split(":")[0] for text in told] == [
        "No handler serves the queue 'clients'",
        "No handler serves the queue 'reports'",
    ]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("async def other(payload: Order) -> None: ...", "one word"),
        ("def wrong(payload: Order) -> None: ...", "async def"),
        ("async def wrong() -> None: ...", "payload first"),
        ("async def wrong(*, payload: Order) -> None: ...", "payload first"),
        ("async def wrong(*payload: Order) -> None: ...", "payload first"),
        ("async def wrong(payload) -> None: ...", "pydantic model"),
        ("async def wrong(payload: dict) -> None: ...", "pydantic model"),
        ("async def wrong(payload: Order, job: Job) -> None: ...", "keyword-only"),
        ("async def wrong(payload: Order, **others: str) -> None: ...", "keyword-only"),
        ("async def wrong(payload: Order, *, client) -> None: ...", "resolved by type"),
        ("async def wrong(payload: Order, *, client: bytes) -> None: ...", "no @resource provides"),
        ("async def wrong(payload: Order, *, client: bytes | None) -> None: ...", "no @resource provides"),
        ("async def wrong(payload: Order, *, client: list[str]) -> None: ...", "no @resource provides"),
        ("async def wrong(payload: Order, *, client: 'Missing') -> None: ...", "Missing"),
    ],
)
def test_a_handler_of_another_shape(package: Package, code: str, told: str) -> None:
    name = package({**GOOD, "broker/wrong.py": f'{HEAD}\n@handler("broker")\n{code}'})
    (text,) = problems(name)
    assert told in text
    assert "broker" in text
    assert "wrong" in text


def test_a_handler_in_another_queues_folder(package: Package) -> None:
    code = f'{HEAD}\n@handler("alerts")\nasync def wrong(payload: Order) -> None: ...'
    (text,) = problems(package({**GOOD, "broker/wrong.py": code}))
    assert "move it to alerts/" in text


def test_all_faults_are_told_together(package: Package) -> None:
    wrong = f'{HEAD}\n@handler("broker")\ndef %s(payload: Order) -> None: ...'
    name = package({**GOOD, "broker/one.py": wrong % "one", "broker/two.py": wrong % "three"})
    assert len(problems(name)) == 2


def test_the_decorator_returns_the_function_unchanged() -> None:
    from listener import handler

    async def email(payload: Payload) -> None: ...

    assert handler("alerts")(email) is email


def test_two_webhooks_on_one_path_are_told(package: Package) -> None:
    code = '\n@webhook("/webhooks/mail")\ndef other(delivery: Delivery, settings: Settings) -> NewJob: ...'
    (text,) = problems(package({**GOOD, "broker/more.py": HEAD + code}))
    assert "/webhooks/mail" in text


def test_two_webhooks_that_one_request_could_mean_are_told(package: Package) -> None:
    code = '\n@webhook("/webhooks/{kind}")\ndef other(delivery: Delivery, settings: Settings) -> NewJob: ...'
    (text,) = problems(package({**GOOD, "broker/more.py": HEAD + code}))
    assert "/webhooks/mail and /webhooks/{kind}" in text or "/webhooks/{kind} and /webhooks/mail" in text


def test_our_own_handlers_load() -> None:
    registry = load()
    assert ("maintenance", "prune") in registry.handlers


class Renewal(Payload):
    subscription_id: int
    note: str = ""


@pytest.mark.parametrize("data", [{"subscription_id": 1}, {"subscriptionId": 1}])
def test_payloads_take_snake_case_and_camel_case(data: dict[str, object]) -> None:
    assert Renewal.model_validate(data).subscription_id == 1


def test_payloads_refuse_what_they_do_not_know_and_do_not_quote_it() -> None:
    with pytest.raises(ValidationError) as refused:
        Renewal.model_validate({"subscription_id": "Alice Smith", "noet": "a secret"})
    assert "noet" in str(refused.value)
    assert "Alice" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_folder_needs_no_init_file_and_handlers_that_want_nothing_need_no_resources(tmp_path: Path) -> None:
    project = tmp_path / "handlers" / "reports"
    project.mkdir(parents=True)
    (project.parent / "__init__.py").touch()
    (project / "daily.py").write_text(
        HEAD + '@handler("reports")\nasync def daily(payload: Order) -> None: ...\n'
    )
    look = "from listener.registry import load; print(*load().handlers)"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", look],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "('reports', 'daily')\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\nimport nowhere_to_be_found", "there is no module nowhere_to_be_found"),
        ("\ndef x(:", "line 2 is no"),
    ],
)
def test_a_file_that_python_cannot_load_is_named(package: Package, text: str, told: str) -> None:
    name = package({**GOOD, "broker/wrong.py": text})
    (problem,) = problems(name)
    assert problem.startswith(f"{name}.broker.wrong cannot be loaded: {told}")
