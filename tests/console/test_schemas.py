"""`pulse migrate` publishes schemas of payloads, and what docs/payloads.md says of them is what happens."""

import re
from pathlib import Path

import asyncpg
import pytest

from devstack.gateway import Gateway
from listener.registry import load
from tests.console.commanding import Terminal
from tests.sql.calls import Connection


@pytest.fixture
def terminal(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: str
) -> Terminal:
    monkeypatch.setenv("DATABASE_URL", database)
    return Terminal(gateway, monkeypatch, capsys)


def blocks(checkout: Path, language: str) -> list[str]:
    text = (checkout / "docs" / "payloads.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


async def test_migrate_publishes_a_schema_for_each_handler_and_then_there_is_nothing_new(
    terminal: Terminal, owner: Connection
) -> None:
    types = len(load().handlers)
    first = await terminal.types("migrate", "--json")
    again = await terminal.types("migrate", "--json")
    assert [said.document["schemas"] for said in (first, again)] == [
        {"published": types, "new": types, "retiring": 0},
        {"published": types, "new": 0, "retiring": 0},
    ]
    assert await owner.fetchval("select count(*) from job_schemas") == types


async def test_the_statement_of_the_page_is_refused_as_it_says_there(
    terminal: Terminal, owner: Connection, checkout: Path
) -> None:
    await terminal.types("migrate")
    (statement,) = blocks(checkout, "sql")
    sentence = statement.partition("ERROR:")[2].strip()
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await owner.execute(statement)
    assert str(refused.value) == sentence
    said = await terminal.types("enqueue", "cancel_order", '{"orderId": "42"}')
    assert said.code == 1
    assert sentence in said.err
    await owner.execute("select schema_mode('accept', 'broker')")
    await owner.execute(statement)


async def test_each_command_of_the_page_works(terminal: Terminal, owner: Connection, checkout: Path) -> None:
    await terminal.types("migrate")
    lines = [line for block in blocks(checkout, "bash") for line in block.splitlines()]
    commands = [line.partition("#")[0].split() for line in lines]
    assert len(commands) == 7
    for pulse, *words in commands:
        said = await terminal.types(*words)
        assert (pulse, said.code, said.err) == ("pulse", 0, ""), words
        assert said.out
    modes = await owner.fetch("select queue, type, mode from schema_modes order by 1, 2")
    assert [tuple(row) for row in modes] == [("*", "*", "accept"), ("payment", "stripe_webhook", "refuse")]


@pytest.mark.parametrize(
    "words", [["retire"], ["retire", "payment"], ["mode"], ["mode", "maybe"], ["list", "x"]]
)
async def test_words_that_make_no_sense(terminal: Terminal, words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        await terminal.types("schemas", *words)
    assert left.value.code == 2
