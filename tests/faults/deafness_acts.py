"""How the faults of Realtime are made to happen, and how they end: through the switchboard of the development stack."""

import asyncio

import asyncpg

from tests.faults.listeners import SWEPT, TOLD, Stage
from tests.waiting import until


async def nothing(_stage: Stage) -> None:
    """It ends by itself, or has no end."""


# -- the client's own -----------------------------------------------------------------------------------------------


async def raises(stage: Stage) -> None:
    stage.breaks = True


async def loses_a_task(_stage: Stage) -> None:
    """What an exception that nobody foresaw comes to inside the client."""
    [task] = [one for one in asyncio.all_tasks() if "AsyncRealtimeClient._listen" in str(one.get_coro())]
    task.cancel()


async def goes_off(stage: Stage) -> None:
    stage.gateway.faults.realtime.off = True
    await until("it has tried in vain for long", stage.outlasted)


async def comes_back(stage: Stage) -> None:
    stage.gateway.faults.realtime.off = False


async def expires(stage: Stage) -> None:
    stage.gateway.realtime.acts.expire_tokens()


async def is_ended(stage: Stage) -> None:
    stage.gateway.realtime.acts.end_channels()


async def errs(stage: Stage) -> None:
    stage.gateway.realtime.acts.system_error()


async def joins_slowly(stage: Stage) -> None:
    stage.gateway.faults.realtime.slow_join_seconds = stage.slowly
    await stage.gateway.realtime.acts.close_sockets()
    await until("nobody is joined any more", lambda: stage.gateway.realtime.joined == 0)


async def has_joined(stage: Stage) -> None:
    await until("the join is answered", lambda: stage.gateway.realtime.joined > 0)
    stage.gateway.faults.realtime.slow_join_seconds = 0


async def loses_the_right_to_read(stage: Stage) -> None:
    await stage.owner.execute(f"revoke select on jobs_{SWEPT}, jobs_{TOLD} from service_role")


async def may_read_again(stage: Stage) -> None:
    await stage.owner.execute(f"grant select on jobs_{SWEPT}, jobs_{TOLD} to service_role")


async def hears_a_giant(stage: Stage) -> None:
    await stage.owner.execute(
        "select realtime.send(jsonb_build_object('x', repeat('x', 1100000)), 'x', 'pulse', true)"
    )


async def goes_half_open(stage: Stage) -> None:
    stage.gateway.realtime.acts.mute_sockets()


async def goes_deaf(stage: Stage) -> None:
    stage.gateway.faults.realtime.deaf = True


async def hears_again(stage: Stage) -> None:
    stage.gateway.faults.realtime.deaf = False


async def refuses(stage: Stage) -> None:
    stage.gateway.faults.realtime.refuse_handshakes = [401, 403, 429, 500] * 3
    await stage.gateway.realtime.acts.close_sockets()
    await until("it has tried in vain for long", stage.outlasted)


async def refuses_no_more(stage: Stage) -> None:
    stage.gateway.faults.realtime.refuse_handshakes = []


# -- the project's --------------------------------------------------------------------------------------------------


async def loses_the_slot(stage: Stage) -> None:
    stage.meanwhile(stage.gateway.realtime.acts.lose_changes(0.4))
    await until("the slot is gone", lambda: not stage.gateway.realtime.listens)


async def has_lost_it(stage: Stage) -> None:
    await stage.done()


async def loses_rows(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 1000


async def says_subscribed_again(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 0
    stage.gateway.realtime.acts.announce_again()


async def is_deployed(stage: Stage) -> None:
    await stage.gateway.realtime.acts.close_sockets()


async def is_disconnected(stage: Stage) -> None:
    await stage.gateway.realtime.acts.disconnect()


async def is_killed(stage: Stage) -> None:
    stage.gateway.realtime.acts.drop_sockets()


async def crashes(stage: Stage) -> None:
    stage.gateway.realtime.acts.crash_channels()


# -- seen on running servers ----------------------------------------------------------------------------------------

TABLES = f"jobs_{SWEPT}, jobs_{TOLD}"


async def is_not_published(stage: Stage) -> None:
    await leaves_the_publication(stage)
    await stage.gateway.realtime.acts.check_publication()


async def leaves_the_publication(stage: Stage) -> None:
    await stage.owner.execute(f"alter publication supabase_realtime drop table {TABLES}")


async def is_published_again(stage: Stage) -> None:
    await stage.owner.execute(f"alter publication supabase_realtime add table {TABLES}")
    await stage.gateway.realtime.acts.check_publication()


async def starts_cold(stage: Stage) -> None:
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0.5
    await stage.gateway.realtime.acts.close_sockets()


async def is_warm(stage: Stage) -> None:
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0.01


async def promises_falsely(stage: Stage) -> None:
    stage.gateway.faults.realtime.false_subscribed = True
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0
    await stage.gateway.realtime.acts.close_sockets()
    realtime = stage.gateway.realtime
    await until("a join was promised falsely", lambda: realtime.joined > 0 and not realtime._changes.served)


async def keeps_its_promises(stage: Stage) -> None:
    stage.gateway.faults.realtime.false_subscribed = False


async def loses_its_connections(stage: Stage) -> None:
    """What a restart of the database is to Realtime; the rows of the next moment are in nobody's slot."""
    superuser = await asyncpg.connect(stage.database, user="supabase_admin")
    try:
        await superuser.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
        )
    finally:
        await superuser.close()


async def makes_its_table_anew(stage: Stage) -> None:
    await stage.owner.execute(f"drop table jobs_{SWEPT} cascade; select create_queue('{SWEPT}')")
    await stage.owner.execute(f"drop table jobs_{TOLD} cascade; select create_queue('{TOLD}')")


async def looks_at_the_publication(stage: Stage) -> None:
    await stage.gateway.realtime.acts.check_publication()


async def has_too_many_events(stage: Stage) -> None:
    stage.gateway.realtime.acts.limit(events_per_second=1, bucket_seconds=0.05)
    await until("the meter is full", lambda: _overfull(stage))


async def _overfull(stage: Stage) -> bool:
    if not stage.gateway.realtime.meter.full():
        await stage.insert(SWEPT)
    return stage.gateway.realtime.meter.full()


async def has_few_events(stage: Stage) -> None:
    stage.gateway.realtime.acts.limit(bucket_seconds=0.05)


async def loses_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 1


async def doubles_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.double_events = 1


async def delays_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.late_seconds = 0.3
    stage.gateway.faults.realtime.late_events = 1


async def announces_nothing(stage: Stage) -> None:
    await stage.owner.execute("select announce_by_broadcast(false)")


async def announces(stage: Stage) -> None:
    await stage.owner.execute("select announce_by_broadcast()")
