"""docs/broker.md does what it says: its SQL runs in the order in which it is read, and its signatures open the door."""

import asyncio
import json
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from devstack.postgres import SUPERUSER
from handlers.broker.handle_callback import receive
from handlers.clients.broker.callback_signature import HEADER, callback_secret
from handlers.resources import ADAPTERS
from listener import Delivery
from tests.handlers.conftest import Owner

ACCOUNT = UUID("8b2f0c6e-6d0c-4f0e-9a50-0123456789ab")
MASTER = "m" * 32
SECRET = callback_secret(MASTER, ACCOUNT, 1)


@pytest.fixture
def page(checkout: Path) -> str:
    return (checkout / "docs" / "broker.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return found


async def test_the_sql_of_the_page_runs_from_the_first_account_to_the_last_fault(
    page: str, owner: Owner, database: str
) -> None:
    admin = await asyncpg.connect(database, user=SUPERUSER)
    await admin.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'ann@example.com')")
    await admin.close()
    for statement in blocks(page, "sql"):
        await owner.execute(statement)
    accounts = await owner.fetch(
        "select broker, credentials_version from broker_connections order by created_at"
    )
    assert [tuple(row) for row in accounts] == [("alpaca", 1), ("alpaca", 2), ("paper", 1)]
    assert await owner.fetchval("select count(*) from paper_faults where kind = 'lost_answer'") == 1
    jobs = await owner.fetch("select type from broker_jobs order by id")
    assert [row["type"] for row in jobs][:2] == ["execute_order", "cancel_order"]


def taken(body: bytes, signature: str) -> str:
    """The event of the job that the door makes of it."""
    parameters = {"connection_id": str(ACCOUNT), "version": "1"}
    delivery = Delivery(body, {HEADER.lower(): signature}, datetime.now(UTC), parameters)
    return str(receive(delivery, {"BROKER_CALLBACK_SECRET": MASTER}).data["event"])


async def test_what_the_page_signs_in_python_opens_the_door(page: str) -> None:
    words: dict[str, Any] = {"secret": SECRET}
    (program,) = blocks(page, "python")
    exec(program, words)
    assert taken(words["body"], words["headers"]["X-Pulse-Signature"]) == "position_updated"


async def test_what_the_page_signs_in_a_shell_opens_the_door(page: str, tmp_path: Path) -> None:
    (program,) = [block for block in blocks(page, "bash") if "openssl dgst" in block]
    sent = tmp_path / "sent.json"
    curl = tmp_path / "curl"
    curl.write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(sent)!r}, 'w'))\n"
    )
    curl.chmod(0o755)
    environment = os.environ | {
        "SECRET": SECRET,
        "URL": "http://door.example",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    shell = await asyncio.create_subprocess_exec(str(shutil.which("bash")), "-euc", program, env=environment)
    assert await shell.wait() == 0
    words = json.loads(sent.read_text())
    header = words[words.index("-H") + 1].partition(": ")
    assert header[0] == HEADER
    assert taken(words[words.index("-d") + 1].encode(), header[2]) == "order_filled"


async def test_the_secret_that_the_page_prints_is_the_one_that_opens_the_door(page: str) -> None:
    (program,) = [block for block in blocks(page, "bash") if "broker_callback_secret" in block]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ACCOUNT": str(ACCOUNT),
        "BROKER_CALLBACK_SECRET": MASTER,
    }
    shell = await asyncio.create_subprocess_exec(
        str(shutil.which("bash")), "-euc", program, env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await shell.communicate()
    assert SECRET in said.decode()


async def test_what_the_page_names_is_there(page: str, owner: Owner, checkout: Path) -> None:
    section = page.partition("## Tables")[2].partition("##")[0]
    tables = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE)))
    assert len(tables) > 7
    for table in tables:
        assert await owner.fetchval("select to_regclass($1::text)", f"public.{table}"), table
    for path in re.findall(r"`((?:handlers|tests|paper)/[\w/]+(?:\.py|/))`", page):
        assert (checkout / path).exists(), path
    assert {"alpaca", "ccxt", "paper"} <= set(ADAPTERS)


async def test_every_notice_of_the_family_is_on_the_page(page: str, checkout: Path) -> None:
    files = sorted((checkout / "sql").glob("3*.sql"))
    text = "\n".join(file.read_text() for file in files)
    told = set(re.findall(r"tell_operators\(\s*'Trading', '(\w+)'", text)) | set(
        re.findall(r"'(order_\w+)', '(?:was|is|has)", text)
    )
    told |= set(re.findall(r"tell_trader\(\s*\S+,\s*'(\w+)'", text))
    section = page.partition("## Who is told what")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|(.*?)\|", section, re.MULTILINE)))
    assert told == set(named)
