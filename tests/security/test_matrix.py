"""Every caller at every table, view and function, through the REST door: what `matrix.py` says and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.migrate import migrate, migrations
from tests.security.alert_seeds import ALERT_SEEDS
from tests.security.broker_seeds import BROKER_SEEDS
from tests.security.matrix import CALLERS, FUNCTIONS, INSERTS, MINE, READS, TABLES, UPDATES

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Answer: TypeAlias = tuple[int, Any]

SIBLINGS = {"broker_jobs", "alerts_jobs", "maintenance_jobs"}
"""Like payment_jobs and reports_jobs in each column, by a test of tests/sql: a few columns are asked for."""
REFUSED = {
    "42501",  # not allowed
    "55000",  # a view that cannot be written, whoever asks
    "428C9",  # a column that counts by itself, whoever asks
}
# In each table two rows: the first is for the user MINE, or for everybody; the second is not.
SEEDS = f"""
    select create_queue('reports');
    insert into jobs (queue, type, user_id)
    select q, 'a', u::uuid
    from unnest(array['payment', 'broker', 'alerts', 'maintenance', 'reports']) q, unnest(array['{MINE}', null]) u
    where q <> 'payment';
    insert into payment_jobs (type, user_id) values ('a', '{MINE}'), ('a', null);
    insert into failed_jobs (job_id, job_type, job_data, attempts, attempt, user_id)
    values (1, 'payment', '{{}}', 1, 1, '{MINE}'), (2, 'payment', '{{}}', 1, 1, null);
    insert into stale_outcomes (queue, job_id, attempt, kind, outcome)
    values ('payment', 1, 1, 'dead', '{{}}'), ('payment', 2, 1, 'dead', '{{}}');
    insert into realtime_canary (token) values ('a'), ('b');
    insert into job_schemas (queue, type, version, schema, mode)
    values ('payment', 'seed', 'a', '{{}}', 'accept'), ('payment', 'seed', 'b', '{{}}', 'accept');
    insert into schema_modes (queue, type, mode) values ('payment', 'seed', 'accept'), ('broker', 'seed', 'accept');
    insert into call_limits (key, forget_at) values ('a', now()), ('b', now());
    select tell_worker(jsonb_build_object('worker_id', w, 'host', w, 'version', '1', 'queues', '[]'::jsonb,
        'types', '{{}}'::jsonb, 'places', 1, 'running', 0, 'problems', '[]'::jsonb, 'up_seconds', 0))
    from unnest(array['a', 'b']) as w;
    insert into paused (queue, reason) values ('payment', ''), ('broker', '');
    insert into lanes (lane, queue, type, look_at)
    values ('0/a', 'payment', 'a', now()), ('0/b', 'payment', 'a', now());
    insert into schedules (name, queue, type, every_seconds)
    values ('a', 'payment', 'a', 60), ('b', 'payment', 'a', 60);
    insert into subscription_tiers (slug, name, price_monthly, active)
    values ('for all', 'Pro', 29, true), ('gone', 'Gone', 9, false);
    insert into billing_customers (stripe_customer_id, user_id)
    values ('cus_1', '{MINE}'), ('cus_2', gen_random_uuid());
    select extend_paid_period(u::uuid, (select id from subscription_tiers where active), 'manual', 'month', now())
    from unnest(array['{MINE}', gen_random_uuid()::text]) as u;
    insert into crypto_assets (id, chain, symbol, decimals, required_confirmations, active)
    values ('for all', 'bitcoin:regtest', 'BTC', 8, 1, true), ('gone', 'bitcoin:regtest', 'BTC', 8, 1, false);
    insert into crypto_payments (
        id, user_id, tier_id, billing_interval, price, currency, asset_id, chain, symbol, decimals,
        required_confirmations, needs_finality, two_providers, pay_to_address, payer_signs, amount_expected,
        amount_tolerated, expires_at
    )
    select u::uuid, u::uuid, t.id, 'month', 1, 'usd', 'for all', 'bitcoin:regtest', 'BTC', 8, 1, false, false, u,
        false, 1, 0, now()
    from unnest(array['{MINE}', gen_random_uuid()::text]) as u, subscription_tiers as t where t.active;
    insert into crypto_addresses (network, address)
    values ('evm', '0x' || repeat('1', 40)), ('evm', '0x' || repeat('2', 40));
    insert into crypto_transactions (crypto_payment_id, tx_hash)
    select id, md5(id::text) || md5(id::text) from crypto_payments;
    insert into crypto_transfers (crypto_payment_id, chain, tx_hash, place, amount)
    select crypto_payment_id, 'bitcoin:regtest', tx_hash, 0, 1 from crypto_transactions;
    insert into payments (user_id, provider, status, amount, currency)
    values ('{MINE}', 'manual', 'succeeded', 1, 'usd'), (gen_random_uuid(), 'manual', 'succeeded', 1, 'usd');
    insert into stripe_events (id, type, livemode, job_key, status, sent_at)
    values ('evt_1', 'a', false, 'k', 'received', now()), ('evt_2', 'a', false, 'k', 'received', now());
    {BROKER_SEEDS}
    {ALERT_SEEDS}
    notify pgrst, 'reload schema';
"""


# Without it a row is nobody's, and a policy refuses it before the table can.
_WHOSE: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("notification_preferences", "POST"): {"user_id": MINE},
    ("channel_preferences", "POST"): {"user_id": MINE},
}


class Door:
    """The REST door as all callers see it."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._at_once = asyncio.Semaphore(8)

    async def ask(self, caller: str, method: str, path: str, body: object = None, **prefer: str) -> Answer:
        """Status and JSON; a caller with a role of its own shows the public key to the gateway."""
        key = CALLERS[caller]
        apikey = key if key.startswith("sb_") else LOCAL.publishable
        headers = {"apikey": apikey, "Authorization": f"Bearer {key}", **prefer}
        async with (
            self._at_once,
            self._session.request(method, f"/rest/v1/{path}", json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None) if await answer.read() else None

    async def letter(self, caller: str, method: str, path: str, body: object = None) -> str:
        """Y, - or . for a write."""
        status, said = await self.ask(caller, method, path, body, Prefer="return=minimal")
        if status == 404:
            return "."
        return "-" if status >= 400 and said["code"] in REFUSED else "Y"


@pytest.fixture
async def owner(fresh: str) -> AsyncIterator[Connection]:
    """The owner of a project of the older kind, where whatever is made is open to everybody, with our files applied."""
    connection = await asyncpg.connect(fresh)
    try:
        for things in ("tables", "functions", "sequences"):
            await connection.execute(
                f"alter default privileges in schema public grant all on {things} to anon, authenticated, service_role"
            )
        await migrate(fresh, migrations())
        await connection.execute(SEEDS)
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def door(fresh: str, owner: Connection) -> AsyncIterator[Door]:
    async with Gateway(fresh) as gateway, aiohttp.ClientSession(gateway.url) as session:
        yield Door(session)


async def columns_of(owner: Connection, table: str) -> list[str]:
    rows = await owner.fetch(
        "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped",
        f"public.{table}",
    )
    return [row["attname"] for row in rows]


async def test_every_table_and_view_has_its_row(owner: Connection) -> None:
    rows = await owner.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r','p','v','m','f')"
    )
    assert {row["relname"] for row in rows} == set(TABLES), "say in matrix.py who may do what with it"


async def test_every_function_has_its_row(owner: Connection) -> None:
    rows = await owner.fetch("select proname from pg_proc where pronamespace = 'public'::regnamespace")
    assert sorted(row["proname"] for row in rows) == sorted(FUNCTIONS), "say in matrix.py who may call it"


async def reads(
    door: Door, owner: Connection, caller: str, table: str, columns: Sequence[str]
) -> tuple[str, frozenset[str]]:
    """How much a caller reads of a table, and of which columns."""
    found = await asyncio.gather(*(door.ask(caller, "GET", f"{table}?select={column}") for column in columns))
    answers = dict(zip(columns, found, strict=True))
    if all(status == 404 for status, _ in found):
        return ".", frozenset()
    readable = frozenset(column for column, (status, _) in answers.items() if status == 200)
    if not readable:
        assert {said["code"] for _, said in found} == {"42501"}
        return "-", readable
    [count] = {len(said) for status, said in found if status == 200}
    if count in (0, await owner.fetchval(f"select count(*) from {table}")):
        return ("A" if count else "0"), readable
    tag = next(name for name in ("slug", "user_id", "crypto_payment_id", "order_id", "id") if name in columns)
    seen = {row[tag] for row in cast("list[dict[str, str]]", answers[tag][1])}
    return ("O" if seen <= {MINE, "for all"} else "not theirs"), readable


async def writes(
    door: Door, caller: str, method: str, table: str, columns: Sequence[str]
) -> tuple[str, frozenset[str]]:
    """Whether a caller writes to a table, and into which columns. A null that is refused by the table got that far."""
    whose = _WHOSE.get((table, method), {})
    letters = await asyncio.gather(
        *(door.letter(caller, method, table, {**whose, column: None}) for column in columns)
    )
    open_ = frozenset(column for column, letter in zip(columns, letters, strict=True) if letter == "Y")
    return ("Y" if open_ else letters[0]), open_


async def cell(door: Door, owner: Connection, table: str, caller: str) -> list[str]:
    """What is not as written, in words."""
    columns = await columns_of(owner, table)
    if table in SIBLINGS:
        columns = ["id", "type", "status"]
    expected = TABLES[table][list(CALLERS).index(caller)]
    everything = frozenset(columns)
    readable = READS.get((table, caller), everything) if expected[0] in "AO0" else frozenset[str]()
    insertable = INSERTS[table, caller] & everything if expected[1] == "Y" else frozenset[str]()
    updatable = UPDATES.get((table, caller), frozenset())
    read, seen = await reads(door, owner, caller, table, columns)
    insert, inserted = await writes(door, caller, "POST", table, columns)
    update, updated = await writes(door, caller, "PATCH", table, columns)
    delete = await door.letter(caller, "DELETE", table)
    found = f"{read}{insert}{update}{delete}"
    where = f"{table}, {caller}"
    return [
        *([f"{where}: {found}, not {expected}"] if found != expected else []),
        *([f"{where} reads {sorted(seen ^ readable)} wrongly"] if seen != readable else []),
        *([f"{where} inserts {sorted(inserted ^ insertable)} wrongly"] if inserted != insertable else []),
        *([f"{where} updates {sorted(updated ^ updatable)} wrongly"] if updated != updatable else []),
    ]


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_caller_at_every_table_and_view(owner: Connection, door: Door, caller: str) -> None:
    wrong = [said for table in TABLES for said in await cell(door, owner, table, caller)]
    assert wrong == []


async def test_every_caller_at_every_function(owner: Connection, door: Door) -> None:
    rows = await owner.fetch(
        "select proname, pronargs, coalesce(proargnames, '{}') as names from pg_proc"
        " where pronamespace = 'public'::regnamespace"
    )
    wrong: list[str] = []
    for row in rows:
        name, arguments = row["proname"], dict.fromkeys(row["names"][: row["pronargs"]])
        expected = FUNCTIONS.get(name, "").split()
        answers = await asyncio.gather(
            *(door.ask(caller, "POST", f"rpc/{name}", arguments) for caller in CALLERS)
        )
        for caller, letter, (status, said) in zip(CALLERS, expected, answers, strict=True):
            refused = status >= 400 and said["message"] == f"permission denied for function {name}"
            found = "-" if refused else "." if status == 404 else "Y"
            if found != letter:
                wrong.append(f"{caller} and {name}: {found}, not {letter} ({status})")
    assert wrong == []


async def test_what_may_be_inserted_is_inserted(owner: Connection, door: Door) -> None:
    tables = {
        (table, caller): columns for (table, caller), columns in INSERTS.items() if table.endswith("jobs")
    }
    for (table, caller), columns in tables.items():
        job = {"type": "inserted"} | ({"queue": "broker"} if "queue" in columns else {})
        status, _ = await door.ask(caller, "POST", table, job)
        assert status == 201, table
    assert await owner.fetchval("select count(*) from jobs where type = 'inserted'") == len(tables)
