"""The outcomes of one queue on their way to the database: gathered, sent in batches, kept until they are answered.

How a batch can fail, and what then happens:
  - It was not answered (an outage, a proxy that breaks off large requests): it is sent again, smaller each time, and
    one that fails alone goes to the end, since another one may be easier to take. Meanwhile the journal keeps them all.
    One that fails alone for minutes while other calls are answered is sent without its result: a handler that has
    returned has done its work, and a job that never ends would be done again by the next process.
  - It was refused because of its content: each outcome is sent alone, so that one which cannot be stored does not hold
    up the rest; the one that is refused again is recorded without its result, or as a dead letter that says so.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from listener.answers import Claim
from listener.errors import StoreError, StoreRefused
from listener.events import Emit, Finished
from listener.jobs import AttemptRef
from listener.journal import Journal
from listener.outcomes import Completed, Dead, Ended, ErrorText, Outcome, Recorded, Retry
from listener.reporter import Reporter
from listener.store import ClaimRequest, Store

_MOST_HALVINGS = 10  # of at most 1000 places
# SQLSTATEs of data and constraint errors; everything else that is refused is a matter of keys, paths and proxies.
_ABOUT_CONTENT = ("22", "23")
_TOO_LARGE = 413
_MOST_TRIES_ALONE = 60  # five minutes: a database that is slow for a while costs no result


class Trouble:
    """A kind of calls that does not succeed: since when, and how."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self._since: float | None = None
        self._what = ""

    def begins(self, error: StoreError) -> None:
        """A call has failed, for the first time or again."""
        self._since = self._since or time.monotonic()
        self._what = "has refused our calls" if isinstance(error, StoreRefused) else "has not answered"

    def ends(self) -> timedelta | None:
        """A call has succeeded. How long that had been otherwise, if it had."""
        since, self._since = self._since, None
        return None if since is None else timedelta(seconds=time.monotonic() - since)

    @property
    def problem(self) -> str | None:
        """In words, while it lasts."""
        if self._since is None:
            return None
        return f"{self.whose}: the REST API {self._what} for {time.monotonic() - self._since:.0f} s"


class Outbox:
    """Holds what has ended until the database has answered it. For one loop: no two calls of it are under way."""

    def __init__(self, store: Store, journal: Journal, reporter: Reporter, emit: Emit) -> None:
        self.reporter = reporter
        self._store = store
        self._journal = journal
        self._emit = emit
        self._waiting: list[Ended] = []
        self._halvings = 0
        """How often to halve what the next call says: grows when one was not answered, falls again."""
        self._is_answered = False
        """Whether anything was answered since the last failure: then that was the failing outcome's own."""
        self._alone: Counter[AttemptRef] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def refs(self) -> list[AttemptRef]:
        """The attempts whose outcomes wait."""
        return [one.ref for one in self._waiting]

    @property
    def is_troubled(self) -> bool:
        """Whether the last calls failed, so that outcomes are sent in portions."""
        return self._halvings > 0

    def add(self, ended: Ended) -> None:
        self._waiting.append(ended)

    async def say(
        self, ended: Sequence[Ended], request: ClaimRequest | None
    ) -> tuple[list[Recorded], Claim | None]:
        """Sends a portion, behind the last words that its attempts said of their progress, and claims as well."""
        if request is not None and not ended:
            return [], await self._store.claim(request)
        await self.reporter.last_words([one.ref for one in ended])
        return await self._store.finish([(one.ref, one.outcome) for one in ended], request)

    def portion(self) -> list[Ended]:
        """What to send in the next call, oldest first."""
        return self._waiting[: max(1, len(self._waiting) >> self._halvings)]

    async def settle(self, sent: Sequence[Ended], recorded: Sequence[Recorded]) -> None:
        """The database has answered the portion: these outcomes are ours no longer."""
        self._is_answered = True
        if sent:
            self._halvings = max(self._halvings - 1, 0)
            await self._let_go(sent, recorded)

    async def keep(self) -> None:
        """Returns when all that waits is in the journal."""
        await self._journal.keep(self._waiting)

    async def unanswered(self, sent: Sequence[Ended]) -> None:
        """The portion was not answered, or refused as a whole: less next time, and all that waits is kept."""
        if sent:
            self._halvings = min(self._halvings + 1, _MOST_HALVINGS)
        if len(sent) == 1:
            self._waiting.append(self._after_failing_alone(self._waiting.pop(0)))
        self._is_answered = False
        await self.keep()

    def _after_failing_alone(self, ended: Ended) -> Ended:
        self._alone[ended.ref] += self._is_answered
        if self._alone[ended.ref] < _MOST_TRIES_ALONE:
            return ended
        match ended.outcome:
            case Completed(result) if result:
                return replace(ended, outcome=Completed({"result_not_kept": "it did not get through"}))
            case Retry(error) | Dead(error) if error.stack:
                return replace(ended, outcome=replace(ended.outcome, error=replace(error, stack=None)))
            case _:
                return ended

    async def record_singly(self, sent: Sequence[Ended]) -> None:
        """Sends each outcome alone. Raises StoreError for the first that does not get through."""
        for ended in sent:
            try:
                outcome, recorded = await self._record(ended.ref, ended.outcome)
            except StoreError:
                await self.unanswered([ended])
                raise
            await self._let_go([ended], [recorded], outcome)

    async def _record(self, ref: AttemptRef, outcome: Outcome) -> tuple[Outcome, Recorded]:
        """One outcome, or what of it the database takes."""
        try:
            (recorded,), _ = await self._store.finish([(ref, outcome)], None)
        except StoreRefused as error:
            lesser = _lesser(outcome, error) if is_about_content(error) else None
            if lesser is None:
                raise
            return await self._record(ref, lesser)
        return outcome, recorded

    async def _let_go(
        self, sent: Sequence[Ended], recorded: Sequence[Recorded], instead: Outcome | None = None
    ) -> None:
        del self._waiting[: len(sent)]
        for ended in sent:
            self._alone.pop(ended.ref, None)
        for ended, answer in zip(sent, recorded, strict=True):
            self._emit(Finished(ended, instead or ended.outcome, answer))
        await self._journal.settle([ended.ref for ended in sent])


def is_about_content(error: StoreRefused) -> bool:
    """Whether repeating cannot help because of what was sent."""
    return error.status == _TOO_LARGE or error.code[:2] in _ABOUT_CONTENT


def _lesser(outcome: Outcome, error: StoreRefused) -> Outcome | None:
    """What to record instead of an outcome that was refused; None when there is no less."""
    refused = error.code or str(error.status)
    match outcome:
        case Completed(result) if result and "result_refused" not in result:
            return Completed({"result_refused": refused})  # the work is done: only its result is lost
        case Dead(ErrorText("OutcomeRefused")):
            return None
        case _:
            text = (
                f"The handler had ended ({outcome.kind}), and the database refused to store that ({refused})."
            )
            return Dead(ErrorText("OutcomeRefused", text))
