"""The demo's subscriber: a subscription by Stripe's events, a job that is given up, and its replay."""

from datetime import UTC, datetime
from functools import partial
from typing import cast
from uuid import uuid4

from demo.stage import Stage
from devstack.stripe.books import Event
from devstack.stripe.double import StripeDouble


class Subscriber:
    """What happens around Stripe."""

    def __init__(self, stage: Stage, stripe: StripeDouble) -> None:
        self._stage = stage
        self._stripe = stripe

    async def activate(self) -> None:
        """Somebody subscribes."""
        stage = self._stage
        stage.say(
            "\n1. Somebody subscribes. Stripe's signed events are inserted into payment_jobs as plain rows."
        )
        user = str(uuid4())
        subscriber = self._stripe.story(user, tells_user="subscription")
        jobs = [await self._insert(event) for event in subscriber.begin()]
        await stage.until("all events are followed", lambda: all(stage.is_done(job) for job in jobs))
        status = await self.subscription_of(user)
        stage.say(f"   select status from user_subscriptions where user_id = …  →  {status}")
        stage.promise("the subscription is active", status == "active")

    async def fail(self) -> int:
        """A job fails until it is given up; answers its dead letter."""
        stage = self._stage
        stage.say(
            "\n2. An event arrives for a customer whom nobody knows. It fails, is retried, and is given up."
        )
        self._stranger = str(uuid4())
        self._strange = self._stripe.story(self._stranger, tells_user="nobody")
        created = self._strange.create()[-1]
        job = await self._insert(created)
        for attempt, delay in ((1, 5), (2, 10), (3, 15)):
            await stage.until(f"attempt {attempt} has failed", partial(stage.has_run, job, attempt))
            await stage.move_clock(delay)
            stage.say(
                f"   (the database's clock moves {delay} s ahead, and another event makes the worker look)"
            )
            await self.wake()
        await stage.until("the last attempt has failed", partial(stage.has_run, job, 4))
        answer = (
            await stage.database.table("failed_jobs")
            .select("id, job_id, job_data, error_class, attempts")
            .eq("job_type", "payment")
            .order("failed_at", desc=True)
            .execute()
        )
        rows = cast("list[dict[str, object]]", answer.data)
        kept = len(rows) == 1 and rows[0]["job_id"] == job and rows[0]["attempts"] == 4
        stage.promise("one dead letter after four attempts", kept)
        dead = rows[0]
        stage.say(
            f"   select * from failed_jobs where job_type = 'payment'  →  dead letter {dead['id']}: "
            f"{dead['error_class']}, {dead['attempts']} attempts"
        )
        self._dead_job = job
        return cast("int", dead["id"])

    async def replay(self, failed_job_id: int) -> None:
        """What was wrong is put right, and the dead letter is replayed."""
        stage = self._stage
        stage.say(
            "\n3. The customer is put right at Stripe, and the dead letter is replayed: pulse retry "
            + str(failed_job_id)
        )
        self._strange.customer["metadata"]["user_id"] = self._stranger
        before = stage.attempts(self._dead_job)
        stage.runs_again(self._dead_job)
        code = await stage.pulse("retry", str(failed_job_id))
        stage.promise("pulse retry exits 0", code == 0)
        await stage.until("the job has run again", lambda: stage.attempts(self._dead_job) > before)
        stage.promise("the replayed job is completed", stage.is_done(self._dead_job))
        stage.promise(
            "it is the same subscription", await self.subscription_of(self._stranger) == "incomplete"
        )
        stage.promise(
            "a second replay is refused", await stage.pulse("retry", str(failed_job_id), quiet=True) == 1
        )

    async def wake(self) -> None:
        """An event of somebody else's, so that the worker looks."""
        await self._insert(self._stripe.story(user_id=uuid4()).create()[0])

    async def subscription_of(self, user: str) -> object:
        """How the user's one subscription stands."""
        answer = (
            await self._stage.database.table("user_subscriptions")
            .select("status")
            .eq("user_id", user)
            .execute()
        )
        rows = cast("list[dict[str, object]]", answer.data)
        return rows[0]["status"] if len(rows) == 1 else None

    async def _insert(self, event: Event) -> int:
        """One signed delivery as a plain row."""
        body, signature = self._stripe.signed(event)
        data = {
            "raw_body": body.decode(),
            "signature": signature,
            "received_at": datetime.now(UTC).isoformat(),
        }
        return await self._stage.insert("payment", "stripe_webhook", data, str(event["type"]))
