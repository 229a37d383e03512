"""The story that the demo plays: five parts, each from an insert to its promised outcome."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import cast
from uuid import uuid4

from supabase import AsyncClient

from demo.clock import Connection, move_clock
from demo.shop import CONFIRMATIONS, Shop
from demo.worker import ROOT, Told
from devstack.chain.anvil import Anvil
from devstack.stripe.books import Event
from devstack.stripe.double import StripeDouble

_PATIENCE_SECONDS = 30


class Story:
    """Plays once. What the worker tells comes in through `hear`; what the database holds is asked of it."""

    def __init__(
        self,
        database: AsyncClient,
        owner: Connection,
        stripe: StripeDouble,
        environment: Mapping[str, str],
        chain_url: str | None,
    ) -> None:
        self._database = database
        self._owner = owner
        self._stripe = stripe
        self._environment = environment
        self._chain_url = chain_url
        self._began = time.time()
        self._ahead = timedelta()
        self._sent: dict[int, float] = {}
        self._outcomes: dict[int, list[Told]] = {}
        self._ready = asyncio.Event()
        self._news = asyncio.Event()
        self._broken: list[str] = []

    def hear(self, told: Told) -> None:
        """A line of the worker's log: outcomes and readiness are shown, the rest is its own business."""
        if told.message == "Realtime is ready":
            self._ready.set()
        job_id = told.job_id
        if job_id is not None:
            self._outcomes.setdefault(job_id, []).append(told)
            since = (told.at.timestamp() - self._sent.get(job_id, self._began)) * 1000
            timing = (
                f"{since:.0f} ms later"
                if job_id in self._sent
                else "inserted by the database or the scheduler"
            )
            self._say(
                f"  job {job_id:<3} attempt {told.facts['attempt']}  {_brief(told.message)}"
                f"  ({timing}; handler {told.duration_ms:.0f} ms, woken by {told.facts['woken_by']})"
            )
        self._news.set()

    async def play(self) -> bool:
        """All parts in turn; answers whether each promise was kept."""
        await self._until("the worker is ready and hears inserts", self._ready.is_set)
        self._say("A worker process is up and subscribed to the inserts of its queues.")
        await self._activate()
        failed_job_id = await self._fail()
        await self._replay(failed_job_id)
        await self._scheduled()
        await self._pay_in_crypto()
        if self._broken:
            self._say("\nNOT as promised: " + "; ".join(self._broken))
            return False
        self._say("\nAll went as promised: nothing was lost, and nothing was done twice.")
        return True

    # -- the parts -------------------------------------------------------------------------------------------------

    async def _activate(self) -> None:
        self._say(
            "\n1. Somebody subscribes. Stripe's signed events are inserted into payment_jobs as plain rows."
        )
        user = str(uuid4())
        subscriber = self._stripe.story(user, tells_user="subscription")
        jobs = [await self._insert(event) for event in subscriber.begin()]
        await self._until("all events are followed", lambda: all(self._is_done(job) for job in jobs))
        status = await self._subscription_of(user)
        self._say(f"   select status from user_subscriptions where user_id = …  →  {status}")
        self._promise("the subscription is active", status == "active")

    async def _fail(self) -> int:
        self._say(
            "\n2. An event arrives for a customer whom nobody knows. It fails, is retried, and is given up."
        )
        self._stranger = str(uuid4())
        self._strange = self._stripe.story(self._stranger, tells_user="nobody")
        created = self._strange.create()[-1]
        job = await self._insert(created)
        for attempt, delay in ((1, 5), (2, 10), (3, 15)):
            await self._until(f"attempt {attempt} has failed", partial(self._has_run, job, attempt))
            self._ahead += timedelta(seconds=delay)
            await move_clock(self._owner, self._ahead)
            self._say(
                f"   (the database's clock moves {delay} s ahead, and another event makes the worker look)"
            )
            await self._insert(self._stripe.story(user_id=uuid4()).create()[0])
        await self._until("the last attempt has failed", partial(self._has_run, job, 4))
        answer = (
            await self._database.table("failed_jobs")
            .select("id, job_id, job_data, error_class, attempts")
            .eq("job_type", "payment")
            .order("failed_at", desc=True)
            .execute()
        )
        rows = cast("list[dict[str, object]]", answer.data)
        kept = len(rows) == 1 and rows[0]["job_id"] == job and rows[0]["attempts"] == 4
        self._promise("one dead letter after four attempts", kept)
        dead = rows[0]
        self._say(
            f"   select * from failed_jobs where job_type = 'payment'  →  dead letter {dead['id']}: "
            f"{dead['error_class']}, {dead['attempts']} attempts"
        )
        self._dead_job = job
        return cast("int", dead["id"])

    async def _replay(self, failed_job_id: int) -> None:
        self._say(
            "\n3. The customer is put right at Stripe, and the dead letter is replayed: pulse retry "
            + str(failed_job_id)
        )
        self._strange.customer["metadata"]["user_id"] = self._stranger
        self._sent[self._dead_job] = time.time()
        before = self._attempts(self._dead_job)
        code = await self._pulse("retry", str(failed_job_id))
        self._promise("pulse retry exits 0", code == 0)
        await self._until("the job has run again", lambda: self._attempts(self._dead_job) > before)
        self._promise("the replayed job is completed", self._is_done(self._dead_job))
        self._promise(
            "it is the same subscription", await self._subscription_of(self._stranger) == "incomplete"
        )
        self._promise(
            "a second replay is refused", await self._pulse("retry", str(failed_job_id), quiet=True) == 1
        )

    async def _scheduled(self) -> None:
        self._say("\n4. The scheduler put the hourly clean-up into maintenance_jobs when the worker began.")
        answer = (
            await self._database.table("jobs")
            .select("id, status, idempotency_key, result")
            .eq("queue", "maintenance")
            .eq("type", "prune")
            .execute()
        )
        rows = cast("list[dict[str, object]]", answer.data)
        self._promise("one row for the slot, completed", [row["status"] for row in rows] == ["completed"])
        for row in rows:
            self._say(
                f"   job {row['id']}, key {row['idempotency_key']}  →  {row['status']}, {row['result']}"
            )

    async def _pay_in_crypto(self) -> None:
        if self._chain_url is None:
            self._say(
                "\n5. A payment in crypto is skipped: there is no local chain. `.ci/counterparts` installs one."
            )
            return
        self._say(
            "\n5. Somebody pays in crypto. The worker looks at a chain, and counts no transaction too early."
        )
        async with Anvil.open(self._chain_url) as chain:
            shop, user = await Shop.opened(chain, self._owner), str(uuid4())
            request = await shop.request(self._database, user)
            self._say(f"   asked for: {request['amount']} {request['symbol']} to {request['pay_to_address']}")
            tx_hash = await shop.pay(request)
            data: dict[str, object] = {"crypto_payment_id": request["id"], "tx_hash": tx_hash}
            job = await self._insert_row("crypto_verification", data, f"paid by {tx_hash[:12]}…")
            await self._until("it has looked", partial(self._has_run, job, 1))
            self._promise("in its first block it buys nothing", await self._subscription_of(user) is None)
            await chain.mine(CONFIRMATIONS - 1)
            self._ahead += timedelta(seconds=15)
            await move_clock(self._owner, self._ahead)
            self._say(
                f"   ({CONFIRMATIONS - 1} more blocks, the database's clock moves 15 s ahead, and an event comes)"
            )
            await self._insert(self._stripe.story(user_id=uuid4()).create()[0])
            await self._until("it has looked again", partial(self._has_run, job, 2))
        self._promise("the payment is confirmed", self._is_done(job))
        self._promise("the subscription is active", await self._subscription_of(user) == "active")

    # -- means -----------------------------------------------------------------------------------------------------

    async def _insert(self, event: Event) -> int:
        """One signed delivery as a plain row, by the official client."""
        body, signature = self._stripe.signed(event)
        data = {
            "raw_body": body.decode(),
            "signature": signature,
            "received_at": datetime.now(UTC).isoformat(),
        }
        return await self._insert_row("stripe_webhook", data, str(event["type"]))

    async def _insert_row(self, type_: str, data: Mapping[str, object], what: str) -> int:
        """A job as any program inserts it."""
        sent = time.time()
        answer = (
            await self._database.table("payment_jobs").insert({"type": type_, "data": dict(data)}).execute()
        )
        job = cast("int", cast("list[dict[str, object]]", answer.data)[0]["id"])
        self._sent[job] = sent
        self._say(f"  job {job:<3} inserted   {what}")
        return job

    async def _subscription_of(self, user: str) -> object:
        answer = (
            await self._database.table("user_subscriptions").select("status").eq("user_id", user).execute()
        )
        rows = cast("list[dict[str, object]]", answer.data)
        return rows[0]["status"] if len(rows) == 1 else None

    async def _pulse(self, *words: str, quiet: bool = False) -> int:
        output = asyncio.subprocess.DEVNULL if quiet else None
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "listener",
            *words,
            cwd=ROOT,
            env=dict(self._environment),
            stdout=output,
            stderr=output,
        )
        return await process.wait()

    def _attempts(self, job: int) -> int:
        return len(self._outcomes.get(job, []))

    def _has_run(self, job: int, attempts: int) -> bool:
        return self._attempts(job) >= attempts

    def _is_done(self, job: int) -> bool:
        told = self._outcomes.get(job)
        return told is not None and told[-1].facts["outcome"] == "completed"

    def _promise(self, what: str, kept: bool) -> None:
        if not kept:
            self._broken.append(what)
        self._say(f"   {'✓' if kept else '✗'} {what}")

    async def _until(self, what: str, is_so: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not is_so():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise SystemExit(f"Waited {_PATIENCE_SECONDS} s in vain until {what}.") from None

    def _say(self, text: str) -> None:
        print(text, flush=True)


def _brief(message: str) -> str:
    """What became of a job, without the sentences of its error: they are in the dead letter."""
    outcome, *rest = message.partition(": ")[2].split("; ")
    return "; ".join([outcome.partition(": ")[0], *rest])
