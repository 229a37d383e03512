"""Recorded conversations with the real Realtime server, held against ours frame by frame."""

import re
from collections.abc import AsyncIterator

import pytest

from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, serving
from tests.contract.realtime_replay import Replay, lines

OWNER = "00000000-0000-4000-8000-000000000001"
EVERY_TYPE = """insert into all_types (
  c_bool, c_int2, c_int4, c_int8, c_numeric, c_numeric_scale, c_float4, c_float8, c_money, c_text, c_varchar, c_char,
  c_bytea, c_uuid, c_json, c_jsonb, c_date, c_time, c_timetz, c_ts, c_tstz, c_interval, c_textarr, c_intarr, c_jsonbarr,
  c_tsarr, c_numarr, c_boolarr, c_uuidarr, c_enum, c_enumarr, c_domain, c_comp, c_inet, c_cidr, c_macaddr, c_bit,
  c_varbit, c_point, c_int4range, c_tstzrange, c_tsvector, c_xml
) values (
  true, 32767, 2147483647, 9223372036854775807, 123456789012345678901234567890.123456789, 10.50, 1.1, 0.1, '$1,234.50',
  E'line1\\nline2 "q" \\\\ tab\\t ☃ 🎉', 'vc', 'ab', E'\\\\xdeadbeef00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  '{"b":1,"a":1,"a":2}', '{"b":1,"a":1.1,"big":12345678901234567890}', '2026-02-28', '13:14:15.123456', '13:14:15+02',
  '2026-02-28 13:14:15.123456', '2026-02-28 13:14:15.123456+02', '1 mon 2 days 03:04:05', array['a','b,c','d"e',null],
  array[1,null,3], array['{"a":1}'::jsonb], array['2026-01-01'::timestamptz], array[1.10,2.20], array[true,false],
  array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid], 'happy', array['sad','ok']::mood[], 5, row('Main, St',12345),
  '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', b'101', b'101', '(1.5,2)', '[1,10)',
  '[2026-01-01 00:00+00,2026-02-01 00:00+00)', 'hello:1 world:2', '<a>b</a>'
)"""


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


def abbreviated(statement: str) -> str:
    """The statement behind a note that only hints at it."""
    if match := re.fullmatch(r"insert payment_jobs (\w+)", statement):
        return f"insert into payment_jobs (job_type) values ('{match[1]}')"
    if statement == "insert not_published":
        return "insert into not_published (note) values ('x')"
    if match := re.fullmatch(r"insert (\(.*\))", statement):
        return f"insert into payment_jobs (job_type, status, priority) values {match[1]}"
    if match := re.fullmatch(r"insert big_rows id=(\d+) body=(\d+) bytes", statement):
        return f"insert into big_rows values ({match[1]}, 'n', repeat('x', {match[2]}))"
    if statement.startswith("insert into all_types(c_bool,c_int2"):
        return EVERY_TYPE
    if statement.startswith("insert into all_types(c_bool,c_int8"):
        return "alter table all_types alter id restart with 5; " + statement
    if statement == "alter table all_types replica identity full":  # PostgreSQL 18 wants both
        return "alter publication supabase_realtime set (publish_generated_columns = stored); " + statement
    return statement.replace("%s", f"'{OWNER}'")


@pytest.mark.parametrize(
    ("recording", "compared"),
    [
        ("py_01", 7),
        ("py_03", 105),
        ("py_04", 11),
        ("py_05", 8),
        ("raw_10", 9),
        ("raw_11", 22),
        ("raw_12", 48),
        ("raw_13", 10),
        ("raw_14", 27),
        ("raw_15", 18),
        ("raw_16", 10),
        ("js_01", 7),
    ],
)
async def test_conversation_goes_as_recorded(bench: Bench, recording: str, compared: int) -> None:
    recorded = lines(recording)
    spelled = {line["sql"]: abbreviated(line["sql"]) for line in recorded if line.get("kind") == "sql"}
    replay = Replay(bench, sql=spelled)
    await replay.run(recorded)
    assert replay.compared == compared
