"""What would take long to judge is taken: no INSERT is lost to a slow judge, and a cancelled one is cancelled."""

import json

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection
from tests.sql.test_schemas import publish, refused

MANY_FIELDS = {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(1000)}}


def choices_within_choices() -> tuple[object, object]:
    """Wrong at its very end: each choice looks at it all, and so does each choice within."""
    schema: object = {"type": "integer"}
    wrong: object = "x"
    right: object = 1
    for _ in range(4):
        schema = {"anyOf": 5 * [{"type": "array", "items": schema}]}
        wrong, right = [*19 * [right], wrong], 20 * [right]
    return schema, wrong


SLOW: dict[str, tuple[object, object]] = {
    "choices within choices": choices_within_choices(),
    "a pattern for a megabyte": ({"type": "string", "pattern": "a[ab]{20}a[ab]{40}0"}, 900_000 * "a"),
    "many objects of many fields": ({"type": "array", "items": MANY_FIELDS}, [*6_000 * [{}], 1]),
}


def about(schema: object) -> dict[str, object]:
    """Of a payload with the field a."""
    return {"type": "object", "properties": {"a": schema}}


@pytest.mark.parametrize("case", SLOW)
async def test_what_would_take_long_to_judge_is_taken(case: str, server: Calls) -> None:
    schema, wrong = SLOW[case]
    await publish(server, about(schema))
    made = await server.insert(data=json.dumps({"a": wrong}))
    assert (await server.row(made))["status"] == "pending"


async def test_live_schemas_of_a_type_share_the_steps(server: Calls, owner: Connection) -> None:
    """A list of 6,000 is judged by one, and beyond the bound of two."""
    data = json.dumps({"a": [*5_999 * [1], "x"]})
    schema = about({"type": "array", "items": {"type": "integer"}})
    await publish(server, schema)
    async with refused(owner, "payment job a: data.a[5999] must be a whole number"):
        await server.insert(data=data)
    await publish(server, {**schema, "title": "newer"})
    await server.insert(data=data)


async def test_a_large_text_takes_nothing_from_the_fields_beside_it(server: Calls, owner: Connection) -> None:
    text = {"type": "string", "pattern": "^[a-z]+$"}
    await publish(server, {"type": "object", "properties": {"a": text, "b": text}})
    async with refused(owner, "payment job a: data.b must match ^[a-z]+$"):
        await server.insert(data=json.dumps({"a": 500_000 * "1", "b": "1"}))


async def test_a_large_batch_is_judged_from_its_beginning(server: Calls, owner: Connection) -> None:
    """Each row takes about a hundred steps, so the first five hundred fit into those of a statement."""
    await publish(server, about({"type": "array", "items": {"type": "integer"}}))
    batch = """
        insert into payment_jobs (type, data)
        select 'a', jsonb_build_object('a', case when n = $1 then '["x"]' else $2::jsonb end)
        from generate_series(1, 600) as n
    """
    numbers = json.dumps(100 * [1])
    async with refused(owner, "payment job a: data.a[0] must be a whole number"):
        await server.connection.execute(batch, 400, numbers)
    await server.connection.execute(batch, 550, numbers)
    assert await owner.fetchval("select count(*) from jobs") == 600


async def test_a_cancelled_insert_is_cancelled_whatever_the_judge_was_at(
    server: Calls, owner: Connection
) -> None:
    """What could not be judged is taken; what its user cancelled is not that."""
    await owner.execute(
        """
        create or replace function leaf_problem(rule jsonb, kind text, is_kind text, word text) returns text
        language plpgsql as 'begin perform pg_sleep(50); return null; end'
        """
    )
    await publish(server)
    await server.connection.execute("set statement_timeout = '200ms'")
    with pytest.raises(asyncpg.QueryCanceledError):
        await server.insert(data='{"n": 1}')
    assert await owner.fetchval("select count(*) from jobs") == 0
