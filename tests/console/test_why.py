"""`pulse why` as a person reads it, and as a script does."""

import pytest

from devstack.gateway import Gateway
from tests.console.commanding import Terminal
from tests.sql.calls import Connection


@pytest.fixture
def terminal(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Terminal:
    return Terminal(gateway, monkeypatch, capsys)


async def test_a_sentence_and_its_mend(terminal: Terminal, owner: Connection) -> None:
    id_ = await owner.fetchval("insert into payment_jobs (type) values ('a') returning id")
    said = await terminal.types("why", str(id_))
    assert (said.code, said.err) == (0, "")
    head, sentence, word, mend = said.out.splitlines()
    assert head == f"payment job {id_} a: pending"
    assert "no worker is running" in sentence
    assert (word, mend.strip()) == ("mend:", "pulse worker --queues payment")
    document = (await terminal.types("why", str(id_), "--json")).document
    assert (document["state"], document["job"]["id"]) == ("no_worker", id_)


async def test_an_id_that_nobody_has_had(terminal: Terminal) -> None:
    said = await terminal.types("why", "99")
    assert said.code == 1
    assert said.out == "No job has had the id 99 yet.\n"


async def test_a_job_that_is_gone_is_none_to_be_told_of(terminal: Terminal, owner: Connection) -> None:
    id_ = await owner.fetchval("insert into payment_jobs (type) values ('a') returning id")
    await owner.execute("delete from payment_jobs")
    said = await terminal.types("why", str(id_))
    assert said.code == 1
    assert "is not there any more" in said.out
