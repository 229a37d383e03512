"""docs/alerts.md does what it says: its SQL runs as it is read, its settings open a worker, its channel delivers."""

import asyncio
import json
import os
import re
import shutil
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from devstack.alerts.firebase import FirebaseDouble
from devstack.postgres import SUPERUSER
from handlers.clients.alerts.mail import Mailer
from handlers.clients.alerts.push_key import service_account
from listener.jobs import QUEUE_OF
from listener.registry import load
from tests.handlers.alerts.conftest import ALERT, Office, Person
from tests.handlers.conftest import Owner
from tests.projects import StartWorker
from tests.waiting import until


@pytest.fixture
def page(checkout: Path) -> str:
    return (checkout / "docs" / "alerts.md").read_text()


def blocks(page: str, language: str) -> list[str]:
    found: list[str] = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return found


async def exported(program: str, folder: Path) -> dict[str, str]:
    """What a shell has in its environment after it."""
    shell = await asyncio.create_subprocess_exec(
        str(shutil.which("bash")),
        *("-euc", f"{program}\nenv -0"),
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await shell.communicate()
    assert shell.returncode == 0
    pairs = (line.partition("=") for line in said.decode().split("\0") if line)
    return {name: value for name, _, value in pairs}


async def test_the_sql_of_the_page_runs_from_the_first_webhook_to_the_operators(
    page: str, owner: Owner, database: str
) -> None:
    ann = uuid4()
    admin = await asyncpg.connect(database, user=SUPERUSER)
    await admin.execute(
        "insert into auth.users (id, email, email_confirmed_at) values ($1, 'ann@example.com', now())", ann
    )
    await admin.close()
    # The page says who runs what: here one connection is Ann, her server and the operators.
    await owner.execute("select set_config('request.jwt.claims', $1, false)", json.dumps({"sub": str(ann)}))
    statements = [one for block in blocks(page, "sql") for one in block.split(";\n") if one.strip()]
    for statement in statements:
        await owner.execute(statement)
    assert await owner.fetchval("select count(*) from alerts_jobs where type = 'notify'") == 1
    targets = await owner.fetch("select user_id, channel from alert_targets order by channel")
    assert [tuple(row) for row in targets] == [(ann, "discord"), (None, "email")]
    assert await owner.fetchval("select digest_daily and digest_weekly from notification_preferences")
    assert [row[0] for row in await owner.fetch("select address from email_suppressions")] == [
        "info@example.com"
    ]
    assert len(statements) > 10


async def test_the_settings_of_the_page_open_what_sends_mail(page: str, tmp_path: Path) -> None:
    programs = blocks(page, "bash")
    links = next(one for one in programs if "EMAIL_UNSUBSCRIBE_SECRET" in one)
    chosen = [one for one in programs if "EMAIL_BACKEND" in one]
    assert len(chosen) == 3
    for program in chosen:
        settings = await exported(program + links, tmp_path)
        async with Mailer.open(settings) as mailer:
            url = mailer.unsubscribe_url("ann@example.com", "all") or ""
            assert url.startswith("https://jobs.example.com/unsubscribe/")


async def test_the_key_of_firebase_is_read_as_the_page_puts_it(page: str, tmp_path: Path) -> None:
    (program,) = [one for one in blocks(page, "bash") if "FIREBASE_KEY" in one]
    key = FirebaseDouble().key
    (tmp_path / "service-account.json").write_text(json.dumps(key, indent=2))
    settings = await exported(program, tmp_path)
    assert service_account(settings["FIREBASE_KEY"]) == key


async def test_the_channel_of_the_page_delivers(
    page: str,
    project: Path,
    checkout: Path,
    tmp_path: Path,
    start_worker: StartWorker,
    office: Office,
    person: Person,
    owner: Owner,
) -> None:
    family = project / "handlers" / "alerts"
    family.mkdir()
    for name in ("__init__.py", "notify.py"):
        (family / name).symlink_to(checkout / "handlers" / "alerts" / name)
    (program,) = blocks(page, "python")
    (family / "letter.py").write_text(program)
    box = tmp_path / "letterbox"
    box.mkdir()
    user = await person(letter=str(box))
    async with start_worker():
        await office.tell(userId=str(user), **ALERT)

        async def is_sent() -> bool:
            return bool(await owner.fetchval("select status = 'sent' from alert_deliveries"))

        await until("the letter is delivered", is_sent)
    assert [path.read_text() for path in box.iterdir()] == ["Filled: 10 AAPL at 190.10"]


def test_what_the_page_names_is_there(page: str, checkout: Path) -> None:
    section = page.partition("## Jobs")[2].partition("##")[0]
    types = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?)\|", section, re.MULTILINE))))
    assert types == {type_ for type_, queue in QUEUE_OF.items() if queue == "alerts"}
    assert types == set(load("handlers", ["alerts"]).types("alerts"))
    for path in re.findall(r"`((?:handlers|tests)/[\w/]+(?:\.py|/))`", page):
        assert (checkout / path).exists() or path.endswith("letter.py"), path
    assert (checkout / "docs" / "digest.png").exists()
