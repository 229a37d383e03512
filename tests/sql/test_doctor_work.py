"""The doctor on the work: each trouble of workers and jobs is found, and what it prints mends it."""

import json
from typing import Any

import asyncpg
import pytest

from tests.sql.calls import Connection
from tests.sql.patient import Patient
from tests.waiting import until


async def runs(patient: Patient) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        await patient.owner.fetchval("select claim('payment', '{a}', 10, 30, 'w', 'sweep')")
    )
    return answer


async def only(patient: Patient, *besides: str) -> dict[str, str]:
    """The one finding that there is, besides those that come with a moved clock."""
    found = [one for one in await patient.findings() if one["finding"] not in {"clock_replaced", *besides}]
    assert len(found) == 1, found
    return found[0]


async def is_mended(patient: Patient, *besides: str) -> bool:
    return set(await patient.words()) <= {"clock_replaced", *besides}


async def test_nobody_runs_jobs(owner: Connection) -> None:
    patient = Patient(owner)
    assert (await only(patient))["mend"] == "pulse worker"
    await patient.says()
    assert await is_mended(patient)


async def test_a_queue_has_no_worker(patient: Patient) -> None:
    await patient.owner.execute("insert into broker_jobs (type) values ('a')")
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("queue_without_worker", "pulse worker --queues broker")
    await patient.says("x", queues=["broker"], types={"broker": ["a"]})
    assert await is_mended(patient)


async def test_a_type_has_no_worker(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('strange'), ('strange'), ('a')")
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "type_without_worker"
    assert found["what"].startswith("2 jobs of the type strange are due")
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)
    assert await patient.owner.fetchval("select count(*) from jobs where status = 'cancelled'") == 2


async def test_a_type_has_no_worker_and_its_jobs_wait_in_a_lane(patient: Patient) -> None:
    """No line shows them, and nobody looks whether the limit would let them through."""
    await patient.owner.execute(
        "insert into payment_jobs (type) values ('strange'), ('strange'), ('strange')"
    )
    await patient.owner.execute("select limit_jobs('payment', 'strange', at_once => 1)")
    await patient.owner.execute("select claim('payment', '{strange}', 10, 1000, 'v', 'sweep')")
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "type_without_worker"
    assert found["what"].startswith("2 jobs of the type strange are due")
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_all_places_of_a_queue_are_taken(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 11)")
    await patient.says("v", places=10, types={"payment": ["a"]}, leaves_in_seconds=None)
    await patient.owner.execute("delete from workers where worker_id = 'w'")
    await patient.owner.execute("select claim('payment', '{a}', 10, 1000, 'v', 'sweep')")
    await patient.at("2 minutes")
    await patient.says("v")
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("queue_full", "pulse worker --queues payment")
    await patient.says("x")
    assert await is_mended(patient)


async def test_nobody_ends_an_attempt_whose_lease_is_over(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('a')")
    await runs(patient)
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "lease_over"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)
    assert await patient.owner.fetchval("select status from jobs") == "pending"


HOURLY = "insert into schedules (name, queue, type, every_seconds) values ('hourly', 'payment', 'a', 3600)"


async def test_a_schedule_is_not_run(patient: Patient) -> None:
    await patient.owner.execute(HOURLY)
    assert await patient.findings() == []
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("schedule_stuck", "pulse worker")
    assert "it stands still" in found["what"]
    await patient.owner.execute("update schedules set next_slot = now() + interval '1 hour'")  # a scheduler
    assert await is_mended(patient)


@pytest.mark.parametrize(
    "trouble",
    [
        "update schedules set type = 'strange', next_slot = now() + interval '1 hour'",
        "update schedules set problem = 'it was refused', next_slot = now() + interval '1 hour'",
        "update schedules set settled_to = now() + interval '1 hour', next_slot = now() + interval '2 hours'",
        "update schedules set origin = 'code', declared_at = now() - interval '2 days'",
    ],
)
async def test_a_schedule_is_stuck(patient: Patient, trouble: str) -> None:
    await patient.owner.execute(HOURLY)
    await patient.owner.execute(trouble)
    found = await only(patient)
    assert found["finding"] == "schedule_stuck"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_the_last_job_of_a_schedule_failed(patient: Patient) -> None:
    await patient.owner.execute(HOURLY)
    await patient.owner.execute("update schedules set next_slot = now() + interval '1 hour'")
    await patient.owner.execute("select run_schedule('hourly')")
    await patient.owner.execute("update schedules set last_job_id = (select max(id) from jobs)")
    await fail(patient, 0, "Broken")
    found = await only(patient)
    assert found["finding"] == "schedule_stuck"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_a_pause_is_forgotten(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('a')")
    await patient.owner.execute("select pause_jobs('payment', 'a', 'the provider is down')")
    await patient.at("2 hours")
    await patient.says()
    assert await is_mended(patient)  # it waits as it should
    await patient.at("25 hours")
    await patient.says()
    found = await only(patient, "worker_vanished")
    assert found["finding"] == "paused_long"
    assert "the provider is down" in found["why"]
    await patient.owner.execute(found["mend"])
    assert "paused_long" not in await patient.words()


async def test_a_worker_vanished(patient: Patient) -> None:
    await patient.at("2 minutes")
    await patient.says("x")
    found = await only(patient)
    assert found["finding"] == "worker_vanished"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_a_worker_that_has_left_did_not_vanish(patient: Patient) -> None:
    await patient.says(leaves_in_seconds=5)
    await patient.at("2 minutes")
    await patient.says("x")
    assert await is_mended(patient)


@pytest.mark.parametrize(
    ("change", "finding", "mend"),
    [
        ({"deaf_seconds": 70}, "worker_deaf", "pulse check"),
        ({"problems": ["broker: no answer"], "up_seconds": 70}, "worker_not_ready", "pulse check"),
        ({"clock": "2020-01-01T00:00:00Z"}, "worker_clock", "sudo timedatectl set-ntp true"),
    ],
)
async def test_a_worker_says_that_it_is_not_well(
    owner: Connection, change: dict[str, object], finding: str, mend: str
) -> None:
    patient = Patient(owner)
    await patient.says(**change)
    found = await only(patient)
    assert (found["finding"], found["mend"]) == (finding, mend)
    await patient.says()
    assert await is_mended(patient)


async def test_a_worker_that_has_just_begun_is_given_its_time(owner: Connection) -> None:
    patient = Patient(owner)
    await patient.says(deaf_seconds=5, problems=["payment: has not looked into its queue yet"], up_seconds=5)
    assert await patient.findings() == []


async def test_an_old_version_goes_on_after_a_deploy(owner: Connection) -> None:
    patient = Patient(owner)
    await patient.says("box-17-abc123", version="1", up_seconds=9000)
    await patient.says("box-18-abc123", version="2", up_seconds=7000)
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("versions_differ", "kill -TERM 17  # on a-machine")
    await patient.says("box-17-abc123", version="1", up_seconds=9000, leaves_in_seconds=20)
    assert await is_mended(patient)


async def test_nobody_prunes(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('a')")
    [job] = (await runs(patient))["jobs"]
    ended = {"queue": "payment", "id": job["id"], "attempt": 1, "kind": "completed"}
    await patient.owner.execute("select finish($1)", json.dumps([ended]))
    await patient.at("7 days 12 hours")
    await patient.says()
    assert await is_mended(patient, "worker_vanished")
    await patient.at("9 days")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "not_pruned"
    assert json.loads(await patient.owner.fetchval("select doctor_facts(30)"))["findings"] == [
        one for one in await patient.findings() if one["finding"] == "clock_replaced"
    ]
    await patient.owner.execute(found["mend"])
    # What the worker does with that job.
    [job] = json.loads(
        await patient.owner.fetchval("select claim('maintenance', '{prune}', 1, 30, 'w', 'sweep')")
    )["jobs"]
    await patient.owner.execute("select prune()")
    assert await is_mended(patient)


async def fail(patient: Patient, count: int, error_class: str) -> None:
    await patient.owner.execute(
        "insert into payment_jobs (type) select 'a' from generate_series(1, $1)", count
    )
    jobs = json.loads(await patient.owner.fetchval("select claim('payment', '{a}', 100, 30, 'w', 'sweep')"))[
        "jobs"
    ]
    words = [
        {"queue": "payment", "id": job["id"], "attempt": 1, "kind": "dead", "error_class": error_class}
        for job in jobs
    ]
    await patient.owner.execute("select finish($1)", json.dumps(words))


async def test_many_jobs_of_a_type_fail(patient: Patient) -> None:
    await fail(patient, 9, "Broken")
    assert await patient.findings() == []
    await fail(patient, 1, "Other")
    found = await only(patient)
    assert found["finding"] == "many_failures"
    assert "Most of them with Broken." in found["why"]
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_a_job_kills_its_workers(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type, max_attempts) values ('a', 1)")
    await runs(patient)
    await patient.at("31 seconds")
    await patient.owner.execute("select claim('payment', '{}', 0, 30, 'w', 'sweep', null, true)")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "poison_job"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_dead_rows_pile_up(patient: Patient) -> None:
    owner = patient.owner
    await owner.execute("alter table jobs_payment set (autovacuum_enabled = false)")
    await owner.execute(
        "insert into payment_jobs (type, run_at) select 'a', now() + interval '1 day' from generate_series(1, 10500)"
    )
    await owner.execute("update jobs set updated_at = now()")
    await owner.execute("update jobs set updated_at = now()")
    await owner.execute("select pg_stat_force_next_flush()")
    found = await only(patient, "vacuum_off")
    assert found["finding"] == "bloat"
    await owner.execute(found["mend"])
    assert await is_mended(patient, "vacuum_off")


async def test_a_transaction_is_never_ended(patient: Patient, database: str) -> None:
    forgotten = await asyncpg.connect(database, server_settings={"application_name": "a forgotten shell"})
    try:
        await forgotten.execute("begin; select count(*) from jobs")
        await patient.at("11 minutes")
        await patient.says()
        found = await only(patient, "worker_vanished")
        assert found["finding"] == "old_transaction"
        assert "a forgotten shell" in found["what"]
        await patient.owner.execute(found["mend"])  # asks the session to end, and does not wait for it
        await until("it is mended", lambda: is_mended(patient, "worker_vanished"))
    finally:
        forgotten.terminate()
