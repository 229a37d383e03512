"""What is heard of a job that changes or is deleted: the columns of one's own, and of a deleted one the key."""

import pytest

from devstack.gateway import Gateway
from tests.security.matrix import CALLERS, HEARS, MINE
from tests.security.test_realtime_access import QUEUE, Connect, Connection, connect, inserted, shown, token

__all__ = ["connect"]
WRITE = """
    update jobs set progress = '{"done": 1}', result = '{"paid": true}', last_error = 'secret', worker_id = 'secret'
    where id = $1
"""


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_hears_of_whose_changes(
    caller: str, connect: Connect, gateway: Gateway, owner: Connection
) -> None:
    hears = HEARS[caller]
    everybodys = caller not in ("user", "other")
    jobs = [await inserted(owner, user) for user in (None, MINE)]
    client = await connect()
    await client.join(QUEUE | {"event": "UPDATE"}, token=token(caller))
    for job, user in zip(jobs, (None, MINE), strict=True):
        await owner.execute(WRITE, job)
        gateway.realtime.poke()
        if everybodys or (hears is not None and user == MINE):
            change = await client.change()
            shown(change, hears)
            if caller == "user":
                assert (change["record"]["progress"], change["record"]["result"]) == (
                    {"done": 1},
                    {"paid": True},
                )
    await client.quiet()


@pytest.mark.parametrize("caller", ["user", "other"])
async def test_a_deleted_job_tells_whoever_listens_its_key_and_no_more(
    caller: str, connect: Connect, gateway: Gateway, owner: Connection
) -> None:
    job = await inserted(owner, MINE)
    client = await connect()
    await client.join(QUEUE | {"event": "DELETE"}, token=token(caller))
    await owner.execute("delete from jobs where id = $1", job)
    gateway.realtime.poke()
    change = await client.change()
    assert change["old_record"] == {"id": job, "queue": "payment"}
    assert "record" not in change
    await client.quiet()
