"""Recorded conversations with the real Realtime server, held against ours frame by frame."""

import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from devstack.postgres import Postgres, throw_away_folder
from tests.contract.differences import REALTIME, listed
from tests.contract.realtime_bench import Bench, serving
from tests.contract.realtime_lines import Line, answers, lines, realtime_recordings
from tests.contract.realtime_replay import Compared, Replay

BODY = "(select string_agg(md5(n::text), '' order by n) from generate_series(1, greatest({0} / 32, 1)) as n)"
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


def abbreviated(statement: str) -> str:
    """The statement behind a note that only hints at it."""
    if match := re.fullmatch(r"insert (\w+) i=(\d+)", statement):
        table = "broker_jobs" if match[1] in {"gap", "cold"} else "payment_jobs"
        return f"insert into {table} (job_type, payload) values ('{match[1]}', '{{\"i\": {match[2]}}}')"
    if match := re.fullmatch(r"insert payment_jobs (\w+)", statement):
        return f"insert into payment_jobs (job_type) values ('{match[1]}')"
    if statement == "insert not_published":
        return "insert into not_published (note) values ('x')"
    if match := re.fullmatch(r"insert (\(.*\))", statement):
        return f"insert into payment_jobs (job_type, status, priority) values {match[1]}"
    if match := re.fullmatch(r"insert big_rows id=(\d+) body=(\d+) bytes", statement):
        return f"insert into big_rows values ({match[1]}, 'n', {BODY.format(match[2])})"
    if statement.startswith("insert into all_types(c_bool,c_int2"):
        return EVERY_TYPE
    if statement.startswith("insert into all_types(c_bool,c_int8"):
        return "alter table all_types alter id restart with 5; " + statement
    if statement == "alter table all_types replica identity full":  # PostgreSQL 18 wants both
        return "alter publication supabase_realtime set (publish_generated_columns = stored); " + statement
    return statement.replace("%s", f"'{OWNER}'")


@dataclass(frozen=True)
class Staging:
    """What a recording needs beside its lines. `timing` in seconds, for what the replay cannot bring about."""

    timing: Mapping[str, float] = field(default_factory=dict[str, float])
    own_cluster: bool = False
    """PostgreSQL is stopped, or its slots are used up."""
    no_slots: bool = False
    others: bool = False
    sql: str = ""
    """Run before anything else."""
    noted_late: bool = False
    """Statements were noted when they were over, and what they had caused had been heard already."""


BROADCASTS = """
    create table alerts_jobs (like payment_jobs including all);
    create function tell() returns trigger language plpgsql security definer as $$
    begin
      perform realtime.broadcast_changes(
        'topic:' || new.job_type, tg_op, tg_op, tg_table_name, tg_table_schema, new, old
      );
      return null;
    end $$;
    create trigger tell after insert on alerts_jobs for each row execute function tell();
    create policy listen on realtime.messages for select to authenticated using (true)"""
STAGING = {
    "js_03_db_restart": Staging({"recover_seconds": 60}, own_cluster=True),
    "js_05_realtime_sigkill": Staging({"first_subscribe_seconds": 0.3}),
    "py_00b_subscribed_ok_but_slot_creation_failing": Staging(own_cluster=True, no_slots=True),
    "py_20_db_restart_fast": Staging({"recover_seconds": 60}, own_cluster=True),
    "py_21_db_down_25s": Staging({"recover_seconds": 60}, own_cluster=True, others=True),
    "py_24_realtime_sigterm_restart": Staging({"first_subscribe_seconds": 0.3}),
    "py_25_realtime_down_60s": Staging(others=True),
    "raw_17_broadcast": Staging(sql=BROADCASTS, noted_late=True),
    "raw_23_no_heartbeat": Staging({"idle_seconds": 0.3}),
    "raw_28_ddl_while_subscribed": Staging({"idle_seconds": 2}),
    "raw_29_token_refresh_gap": Staging({"resubscribe_seconds": 0.5}),
    "raw_30_cold_start_gap": Staging({"first_subscribe_seconds": 1}),
}


@asynccontextmanager
async def staged(cluster: Postgres, staging: Staging) -> AsyncIterator[Bench]:
    """A bench as the recording needs it."""
    if not staging.own_cluster:
        async with serving(cluster) as bench:
            yield bench
        return
    with throw_away_folder() as folder:
        async with Postgres(folder, port=free_port()) as own, serving(own) as bench:
            if staging.no_slots:
                bench.delivers = False
                await use_up_slots(bench)
            yield bench


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


async def use_up_slots(bench: Bench) -> None:
    superuser = await asyncpg.connect(bench.superuser_dsn)
    try:
        await superuser.execute(
            "select pg_create_physical_replication_slot('full_' || n)"
            " from generate_series(1, current_setting('max_replication_slots')::int) as n"
        )
    finally:
        await superuser.close()


def began(line: Line) -> float:
    """When a statement was begun, or anything else happened, in ms."""
    return float(line["t_ms"] - line["ms"] if line.get("kind") == "sql" else line["t_ms"])


async def replayed(cluster: Postgres, name: str) -> list[Compared]:
    """What the recorded server sent beside what ours sends."""
    staging = STAGING.get(name, Staging())
    recorded = lines(name)
    if staging.noted_late:
        recorded = sorted(recorded, key=began)
    spelled = {line["sql"]: abbreviated(line["sql"]) for line in recorded if line.get("kind") == "sql"}
    async with staged(cluster, staging) as bench:
        bench.take(staging.timing)
        if staging.sql:
            await bench.sql(staging.sql)
        replay = Replay(bench, recorded, sql=spelled, others=staging.others)
        await replay.run()
        return replay.compared


@pytest.mark.parametrize("name", realtime_recordings())
async def test_conversation_goes_as_recorded(cluster: Postgres, name: str) -> None:
    compared = await replayed(cluster, name)
    differing = {f"line {each.line}": each for each in compared if not each.exact}
    for case, each in differing.items():
        print(f"{case}\n  recorded {each.recorded}\n  now      {each.got}")
    assert sorted(differing) == sorted(listed(REALTIME, name))
    assert len({each.line for each in compared}) == len(answers(name)), "something recorded was not compared"
