"""The only file that speaks PostgREST: each method is one function of `sql/`, called over RPC; `ask` is for the rest.

Every call may be repeated after a lost answer: outcomes are fenced by (job, attempt), enqueueing by its idempotency
key, and a repeated claim (`holding`) hands out what the lost answer had leased. So a failure without a clear answer is
StoreUnavailable, "call again", and only a clear no is StoreRefused.
"""

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Final, Literal, TypeVar, cast
from uuid import UUID

import aiohttp

from listener.answers import Claim, ClaimJson, FinishJson, ReplayJson, read_claim, read_recorded
from listener.errors import StoreRefused, StoreUnavailable
from listener.events import Called, Emit
from listener.jobs import AttemptRef, Enqueued, NewJob, WokenBy
from listener.keyring import Keyring, keyring_of
from listener.outcomes import Outcome, Recorded, to_json

# Longer than the 8 s after which the API's own statement timeout answers, so that we hear its answer.
_TIMEOUT = aiohttp.ClientTimeout(total=15, connect=5)
_ASK_AGAIN = {408, 425, 429}
_UNAUTHORIZED = 401
_MOST_KEYS = 4  # in one call
CHECK_VIOLATION: Final = "23514"
"""The code of a refusal by a constraint, or by the schema of a payload."""
_DATA_EXCEPTION = "22000"
_ABOUT_DATA = "22"
_LONGEST_SENTENCE = 500
# What PostgreSQL cannot keep as text, as JSON spells it: NUL, and one half of a surrogate pair without the other. It
# would say so itself, and write what stands around it into its log.
_NO_TEXT = re.compile(rb"(?<!\\)(?:\\\\)*\\u(?:0000|d[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..\\u)d[c-f])")
_NO_TEXT_CODE = "22P05"
_NO_TEXT_SENTENCE = "texts must be without NUL and without half a surrogate pair"
# Larger bodies go out piece by piece: aiohttp would write bytes in one go, and warns of it.
_LARGE = 1_000_000
_NO_SUCH_FUNCTION = "PGRST202"
_MIGRATE = "Apply the files of sql/ with `pulse migrate` or `supabase db push`"
# What reading an answer of another shape raises: a proxy's own 200, an older or newer version of our functions.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """What to ask of a queue."""

    queue: str
    types: Sequence[str]
    max_jobs: int
    lease: timedelta
    woken_by: WokenBy
    floor: object = None
    """What the last claim of this queue answered as its floor, untouched."""
    sweep: bool = False
    holding: Sequence[AttemptRef] | None = None
    """Set on a repeated call: the attempts of this queue that this process knows it holds."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat answered about the attempts that it named."""

    lost: Sequence[tuple[int, int]]
    """(id, attempt) whose job has moved on."""
    cancel: Sequence[tuple[int, int]]
    """(id, attempt) that somebody asked to cancel."""


class Store:
    """The queue as seen through the REST API. Safe for many tasks at once; owned and closed by `connected`."""

    def __init__(
        self, session: aiohttp.ClientSession, worker_id: str, keyring: Keyring, emit: Emit | None = None
    ) -> None:
        self._session = session
        self._keyring = keyring
        self._emit = emit
        self.worker_id = worker_id
        self.calls = 0
        """RPCs sent so far, repeats included."""

    async def claim(self, request: ClaimRequest) -> Claim:
        """Leases due jobs of one queue to this process."""
        return await self._call(
            "claim", self._claim_arguments(request), lambda said: read_claim(cast("ClaimJson", said))
        )

    async def finish(
        self, outcomes: Sequence[tuple[AttemptRef, Outcome]], request: ClaimRequest | None
    ) -> tuple[list[Recorded], Claim | None]:
        """Records outcomes, each answered in its place, and claims in the same transaction."""
        arguments: dict[str, object] = {"outcomes": [to_json(ref, outcome) for ref, outcome in outcomes]}
        if request is not None:
            arguments["claim"] = self._claim_arguments(request)

        def read(answer: object) -> tuple[list[Recorded], Claim | None]:
            words = cast("FinishJson", answer)
            recorded = [
                read_recorded(ref, one) for (ref, _), one in zip(outcomes, words["outcomes"], strict=True)
            ]
            return recorded, None if request is None else read_claim(cast("ClaimJson", words["claim"]))

        return await self._call("finish", arguments, read)

    async def heartbeat(self, attempts: Sequence[AttemptRef], lease: timedelta) -> Beat:
        """Renews the leases of all attempts named."""

        def read(answer: object) -> Beat:
            words = cast("dict[str, list[tuple[int, int]]]", answer)
            return Beat(*([(id_, attempt) for id_, attempt in words[name]] for name in ("lost", "cancel")))

        arguments = {
            "worker_id": self.worker_id,
            "attempts": attempts,
            "lease_seconds": lease.total_seconds(),
        }
        return await self._call("heartbeat", arguments, read)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Inserts jobs, all or none; StoreRefused carries the database's sentence about what does not fit."""
        return await self._enqueue("enqueue", jobs)

    async def enqueue_delivery(self, job: NewJob) -> Enqueued:
        """Inserts what a provider has delivered; a payload that does not fit is left to a worker."""
        (enqueued,) = await self._enqueue("enqueue_delivery", [job])
        return enqueued

    async def _enqueue(self, function: str, jobs: Sequence[NewJob]) -> list[Enqueued]:
        def read(answer: object) -> list[Enqueued]:
            words = cast("list[dict[str, object]]", answer)
            pairs = zip(jobs, words, strict=True)
            return [
                Enqueued(cast("int", one["id"]), bool(one["created"]), bool(one.get("differs")))
                for _, one in pairs
            ]

        return await self._call(function, {"jobs": [_new_job(job) for job in jobs]}, read)

    async def replay(self, failed_job_ids: Sequence[int]) -> tuple[dict[int, int], list[int]]:
        """Gives dead letters a fresh allowance: ({dead letter: job}, [replayed before or unknown])."""

        def read(answer: object) -> tuple[dict[int, int], list[int]]:
            words = cast("ReplayJson", answer)
            return {one["failed_job_id"]: one["job_id"] for one in words["replayed"]}, words["skipped"]

        return await self._call("replay", {"failed_job_ids": failed_job_ids}, read)

    async def canary(self, token: str) -> str | None:
        """Inserts a row that Realtime should announce to the holder of `token`. Answers what keeps the database from
        broadcasting it, with the mend, if anything does."""
        return await self._call(
            "canary", {"token": token}, lambda said: cast("dict[str, str | None]", said).get("unannounced")
        )

    async def tell_worker(self, worker: Mapping[str, object]) -> None:
        """Notes how this process is, for people who look."""
        await self._call("tell_worker", {"worker": worker}, lambda _: None)

    async def ask(self, function: str, arguments: Mapping[str, object]) -> object:
        """What any other function of `sql/` answers, its JSON as it is: for the command line and small rooms."""
        return await self._call(function, arguments, lambda said: said)

    async def take_door_call(self, caller: str, allowed: int, per: timedelta) -> timedelta:
        """Takes one call of a caller of the door; how long it has to wait instead, zero when it is taken."""
        arguments = {"caller": caller, "allowed": allowed, "per_seconds": per.total_seconds()}
        return await self._call(
            "take_door_call",
            arguments,
            lambda said: timedelta(seconds=float(cast("dict[str, Decimal]", said)["wait_seconds"])),
        )

    def _claim_arguments(self, request: ClaimRequest) -> dict[str, object]:
        return {
            "queue": request.queue,
            "types": request.types,
            "max_jobs": request.max_jobs,
            "lease_seconds": request.lease.total_seconds(),
            "worker_id": self.worker_id,
            "woken_by": request.woken_by,
            "floor": request.floor,
            "sweep": request.sweep,
            "holding": request.holding and [(ref.id, ref.attempt) for ref in request.holding],
        }

    async def _call(self, function: str, arguments: Mapping[str, object], read: Callable[[object], T]) -> T:
        """Calls a function, and tells how long that took and how it went."""
        began = time.monotonic()
        answer: Literal["ok", "unavailable", "refused"] = "unavailable"
        try:
            said = await self._ask(function, arguments, read)
            answer = "ok"
            return said
        except StoreRefused:
            answer = "refused"
            raise
        finally:
            if self._emit is not None:
                self._emit(Called(function, timedelta(seconds=time.monotonic() - began), answer))

    async def _ask(self, function: str, arguments: Mapping[str, object], read: Callable[[object], T]) -> T:
        self.calls += 1
        try:
            data = _dumps(arguments)
            if function == "enqueue" and _NO_TEXT.search(data):
                raise StoreRefused(422, _NO_TEXT_CODE, f"{function}: {_NO_TEXT_SENTENCE}")
        except (RecursionError, TypeError, ValueError) as error:  # the last for NaN, which is no JSON
            why = "the data has no JSON: it is nested too deep, or holds what JSON has no word for"
            raise StoreRefused(422, _DATA_EXCEPTION, f"{function}: {why}") from error
        try:
            status, body = await self._post(function, data)
        except TimeoutError as error:
            raise StoreUnavailable(f"{function}: no answer within {_TIMEOUT.total:.0f} s") from error
        except aiohttp.ClientConnectorError as error:
            text = f"{function}: no connection ({type(error).__name__})"
            raise StoreUnavailable(text, was_sent=False) from error
        except (aiohttp.ClientError, UnicodeError) as error:  # the latter for a host that cannot be a name
            raise StoreUnavailable(f"{function}: {type(error).__name__}") from error
        if status < 300:
            try:
                return read(_loads(body))
            except _UNREADABLE as error:
                raise StoreUnavailable(
                    f"{function}: HTTP {status} and an answer that cannot be read ({type(error).__name__})"
                ) from error
        if status < 400:
            mend = "is SUPABASE_URL the project's own address?"
            raise StoreRefused(status, "", f"{function}: answered by a redirection; {mend}")
        code, message = _error(body)
        if code == _NO_SUCH_FUNCTION:
            message = f"the database has no such function of ours, or one of another version. {_MIGRATE}"
        if status >= 500 and not code:
            message = "the answer is not from PostgREST"  # and may quote what was asked
        if status >= 500 or status in _ASK_AGAIN:
            raise StoreUnavailable(f"{function}: HTTP {status} {code} {message}".rstrip())
        raise StoreRefused(status, code, f"{function}: {message}")

    async def _post(self, function: str, data: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer: to the next key, if the project refuses the one in use."""
        for tries_left in reversed(range(_MOST_KEYS)):
            key = self._keyring.now
            async with self._session.post(
                f"/rest/v1/rpc/{function}",
                headers=key.headers,
                data=data if len(data) < _LARGE else BytesIO(data),
                allow_redirects=False,  # the key and the jobs are for nobody else
            ) as response:
                status, body = response.status, await response.read()
            if status < 300:
                self._keyring.accepted(key)
            # A call that is refused has not begun.
            if status != _UNAUTHORIZED or not await self._keyring.refused(key) or not tries_left:
                return status, body
            self.calls += 1
        raise AssertionError("no try was the last one")


@asynccontextmanager
async def connected(
    supabase_url: str,
    key: str | Keyring,
    worker_id: str,
    *,
    apikey: str | None = None,
    emit: Emit | None = None,
) -> AsyncIterator[Store]:
    """A Store with its connection pool, closed at the end. Does not call anything yet.

    `key` says who we are; `apikey` is for the gateway, where that key alone would not open it. `emit` hears of calls.
    """
    headers = {"Content-Type": "application/json", "User-Agent": f"pulse/{worker_id}"}
    # No limit: the number of calls in flight is bounded by the number of loops that make them.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(
        supabase_url, headers=headers, timeout=_TIMEOUT, connector=connector
    ) as session:
        yield Store(session, worker_id, keyring_of(key, apikey), emit)


def _new_job(job: NewJob) -> dict[str, object]:
    words: dict[str, object] = {
        "queue": job.queue,
        "type": job.type,
        "data": job.data,
        "user_id": job.user_id,
        "priority": job.priority,
        "run_at": job.run_at,
        "max_attempts": job.max_attempts,
        "idempotency_key": job.idempotency_key,
        "traceparent": job.traceparent,
    }
    return {name: value for name, value in words.items() if value is not None}


def _dumps(arguments: Mapping[str, object]) -> bytes:
    return json.dumps(arguments, default=_jsonable, allow_nan=False, separators=(",", ":")).encode()


def _jsonable(value: object) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case UUID():
            return str(value)
        case Decimal():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form; turn it into text or numbers first")


def _loads(body: bytes) -> object:
    return json.loads(body, parse_float=Decimal, parse_int=_integer)


def _integer(digits: str) -> int | Decimal:
    """Python refuses to read very long integers; one job's data must not make a whole claim unreadable."""
    return int(digits) if len(digits) < 4000 else Decimal(digits)


def _error(body: bytes) -> tuple[str, str]:
    """Code and sentence of a PostgREST error body, without what they quote: details the failing row, others a value."""
    try:
        said: object = json.loads(body)
    except (ValueError, RecursionError):
        return "", "the answer is not from PostgREST"
    if not isinstance(said, dict):
        return "", ""
    words = cast("dict[str, object]", said)
    code, message, hint = (str(words.get(name) or "") for name in ("code", "message", "hint"))
    if code == CHECK_VIOLATION:
        message = message.rpartition(' constraint "')[2].removesuffix(
            '"'
        )  # our constraints are named by a sentence
    if code.startswith(_ABOUT_DATA):
        message = re.sub('".*"', '"…"', message, flags=re.DOTALL)
    return code, (f"{message} ({hint})" if hint else message)[:_LONGEST_SENTENCE]
