"""The situations in which something holds a job back: a pause, a limit, or the turns of others."""

from tests.sql.why_situations import SITUATIONS, Scene, situation

__all__ = ["SITUATIONS"]  # all of them, these included

USER = "11111111-1111-1111-1111-111111111111"


@situation(
    "The queue payment is paused since 2026-11-01 12:00:00 UTC (the provider is down): what is due waits, what runs"
    " goes on.",
    "pulse resume payment",
)
async def its_queue_is_paused(scene: Scene) -> int:
    await scene.worker()
    await scene.server.value("select pause_jobs('payment', null, 'the provider is down')")
    return await scene.job()


@situation("The type a is paused since …: what is due waits, …", "pulse resume payment --type a")
async def its_type_is_paused(scene: Scene) -> int:
    await scene.worker()
    await scene.server.value("select pause_jobs('payment', 'a')")
    return await scene.job()


async def one_runs_and_one_waits(scene: Scene, **columns: object) -> int:
    await scene.worker()
    await scene.job(**columns)
    id_ = await scene.job(**columns)
    await scene.server.claim(2)
    return id_


@situation(
    "No more than 1 of payment/a may run at once for the user 11111111-1111-1111-1111-111111111111, and that many do:"
    " job 1 (a) on w. It begins when one of them ends."
)
async def as_many_of_a_user_run_as_may(scene: Scene) -> int:
    await scene.server.value("select limit_jobs('payment', 'a', 'user', at_once => 1)")
    return await one_runs_and_one_waits(scene, user_id=USER)


@situation(
    "No more than 1 of payment may run at once with the same secret, and that many do: job 1 (a) on w. …"
)
async def as_many_with_the_same_word_in_their_data_run_as_may(scene: Scene) -> int:
    await scene.server.value("select limit_jobs('payment', null, 'data.secret', at_once => 1)")
    return await one_runs_and_one_waits(scene)


@situation("No more than 1 of payment/a may start in 60 s, and so many did; the next start is free in …")
async def as_many_have_started_as_may(scene: Scene) -> int:
    await scene.server.value("select limit_jobs('payment', 'a', starts => 1, per_seconds => 60)")
    return await one_runs_and_one_waits(scene)


@situation(
    "No more than 100 may start in 60 s for the user 11111111-1111-1111-1111-111111111111, and so many did; …"
)
async def a_user_has_started_as_many_as_the_platform_lets(scene: Scene) -> int:
    await scene.worker()
    ids = [await scene.job(user_id=USER) for _ in range(101)]
    for job in (await scene.server.claim(101))["jobs"]:
        await scene.server.end(job)
    return ids[-1]


@situation(
    "…; the limit that held it back lets it through by now, and the next sweep, seconds from now, takes it."
)
async def its_limit_was_taken_away(scene: Scene) -> int:
    await scene.server.value("select limit_jobs('payment', 'a', at_once => 1)")
    id_ = await one_runs_and_one_waits(scene)
    await scene.server.value("select unlimit_jobs('payment', 'a')")
    return id_


@situation(
    "… and waits for a turn of its user: of the same user 2 due jobs are before it in the queue payment."
)
async def in_turn(scene: Scene) -> int:
    await scene.worker()
    ids = [await scene.job(user_id=USER) for _ in range(4)]
    await scene.job()
    await scene.server.claim(1)
    return ids[-1]


@situation(
    "… all 1 places of the workers that know it are taken; users take turns, and of its own one due job is before it.",
    "pulse worker --queues payment",
)
async def in_turn_behind_full_workers(scene: Scene) -> int:
    await scene.worker(places=1)
    ids = [await scene.job(user_id=USER) for _ in range(3)]
    await scene.server.claim(1)
    return ids[-1]
