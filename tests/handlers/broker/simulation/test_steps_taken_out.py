"""The simulation without a step of the protocol: it fails, for each step, or the step would be of no use."""

from dataclasses import dataclass
from typing import Any

import pytest

from handlers.broker import execute_order as handler_file
from handlers.clients.broker.broker import Dedupe
from tests.handlers.broker.simulation.lab import simulate, take_out
from tests.handlers.broker.simulation.run import TWICE, Table

MOST_RUNS = 1200
AT_A_TIME = 60
NOT_THERE = "we say that it is not there, and it is"


@dataclass(frozen=True)
class Without:
    """A step, what is there instead, where that hurts, and how."""

    name: str
    function: str
    step: str
    instead: str
    dedupe: Dedupe
    hurts: str = TWICE
    script: str | None = None


IN_SQL = [
    Without(
        "compare-and-set before the call",
        "begin_order",
        "if o.status = 'new' then",
        "if o.status in ('new', 'submitting') then",
        Dedupe.NONE,
    ),
    Without(
        "an id that is kept",
        "order_as_told",
        "'client_order_id', (o).client_order_id",
        "'client_order_id', 'pe' || gen_random_uuid()",
        Dedupe.ACCOUNT,
    ),
    Without(
        "a look before it is sent again",
        "record_submission",
        "status = 'unknown',",
        "status = 'new',",
        Dedupe.NONE,
    ),
    Without("the settle time", "told_settle", "coalesce(", "0 * coalesce(", Dedupe.OPEN_ORDERS),
    Without(
        "the time in which a silent attempt may still send",
        "record_lookup",
        "interval '20 seconds'",
        "interval '0'",
        Dedupe.OPEN_ORDERS,
        script="slow, then late, while another looks",
    ),
    Without(
        "several looks",
        "record_lookup",
        "o.misses >= (told #>> '{traits,misses}')::integer",
        "o.misses >= 1",
        Dedupe.OPEN_ORDERS,
    ),
    Without(
        "looks that count from the settle time on",
        "record_lookup",
        "(told ->> 'begun_at')::timestamptz >= o.settles_at",
        "now_at >= o.submitting_at",
        Dedupe.OPEN_ORDERS,
    ),
    Without(
        "a look that is as old as its beginning",
        "record_lookup",
        "(told ->> 'begun_at')::timestamptz >= o.settles_at",
        "now_at >= o.settles_at",
        Dedupe.OPEN_ORDERS,
        script="frozen with an old look",
    ),
    Without(
        "the broker's own way with ids",
        "conclude_missing",
        "not (dedupe = 'account' or dedupe = 'open_orders' and shows_closed)",
        "false",
        Dedupe.NONE,
    ),
    Without(
        "looks that show what has ended",
        "conclude_missing",
        "dedupe = 'open_orders' and shows_closed",
        "dedupe = 'open_orders'",
        Dedupe.OPEN_ORDERS,
    ),
    Without(
        "the fence of each submission",
        "record_submission",
        "o.submission = record_submission.submission and",
        "",
        Dedupe.OPEN_ORDERS,
        script="frozen before the call, thawed in the next one",
    ),
    Without(
        "a last look before a no that an unexplained submission may explain",
        "give_up_order",
        "not o.unexplained",
        "true",
        Dedupe.ACCOUNT,
        NOT_THERE,
    ),
    Without(
        "a person, where a look cannot say that it is not there",
        "conclude_missing",
        "verdict is not null and shows_closed",
        "verdict is not null",
        Dedupe.ACCOUNT,
        NOT_THERE,
    ),
    Without(
        "the age of a market order",
        "broken_rule",
        "age > (",
        "false and age > (",
        Dedupe.ACCOUNT,
        "a stale market order was sent",
    ),
]


@pytest.mark.parametrize("without", IN_SQL, ids=lambda one: one.name)
async def test_without_a_step_in_sql_the_simulation_fails(database: str, without: Without) -> None:
    await take_out(database, without.function, without.step, without.instead)
    await fails(database, without.dedupe, without.hurts, without.script)


async def test_without_the_window_of_the_monotonic_clock_the_simulation_fails(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_file._Submission, "is_late", False)
    await fails(database, Dedupe.OPEN_ORDERS, TWICE, "frozen before the call, thawed long after")


async def test_with_an_unknown_outcome_taken_for_a_refusal_the_simulation_fails(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fate = handler_file._Submission.fate

    def worse(self: handler_file._Submission, *words: Any) -> Any:
        told = fate(self, *words)
        return told | {"outcome": "refused", "code": "error"} if told["outcome"] == "unknown" else told

    monkeypatch.setattr(handler_file._Submission, "fate", worse)
    await fails(database, Dedupe.ACCOUNT, NOT_THERE)


async def fails(database: str, dedupe: Dedupe, hurts: str, script: str | None = None) -> None:
    table = Table()
    for first in range(0, MOST_RUNS, AT_A_TIME):
        await simulate(database, dedupe, range(first, first + AT_A_TIME), table, script)
        if table.wrong[hurts]:
            print(f"\n{table.runs} runs: {dict(table.wrong)}")
            return
    raise AssertionError(f"{MOST_RUNS} runs went well without this step: {table}")
