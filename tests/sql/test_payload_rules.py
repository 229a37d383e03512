"""The judge of payloads in the database is never stricter than a worker, and says what is wrong in a sentence."""

import asyncio
import json
import os
from collections.abc import Sequence
from typing import Annotated, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, create_model

from listener.schemas import ALIKE, payload_schema
from tests.sql.calls import Connection
from tests.sql.payload_zoo import GOOD, ZOO, Unions, json_text, models, nearly_good, parsed

USUAL = "6"
EXAMPLES = int(os.environ.get("PULSE_EXAMPLES", USUAL))
"""Others with every run when more are asked for: PULSE_EXAMPLES=200 looks for a payload that is refused wrongly."""
JUDGE = """
    select array(
        select (payload_problem($1, d.data)).problem
        from jsonb_array_elements($2) with ordinality as d (data, n)
        order by d.n
    )
"""


async def judged(owner: Connection, model: type[BaseModel], texts: Sequence[str]) -> list[str | None]:
    """What the database says of each payload."""
    said = await owner.fetchval(JUDGE, json.dumps(payload_schema(model)), f"[{','.join(texts)}]")
    return list(said)


def fits(model: type[BaseModel], text: str) -> bool:
    """Whether a worker would run it."""
    try:
        model.model_validate(parsed(text))
    except ValidationError:
        return False
    return True


def test_there_is_good_data_for_every_model() -> None:
    assert set(GOOD) == set(models())
    for name, examples in GOOD.items():
        for data in examples:
            models()[name].model_validate(parsed(json_text(data)))


@pytest.mark.parametrize("whose", ["of the zoo", "of the handlers"])
def test_what_a_worker_would_run_is_never_refused(whose: str, database: str) -> None:
    in_zoo = {model.__name__ for model in ZOO}
    names = [name for name in GOOD if (name in in_zoo) == (whose == "of the zoo")]
    with asyncio.Runner() as runner:
        owner = runner.run(asyncpg.connect(database))
        try:
            for name in names:
                _compare(runner, owner, name)
        finally:
            runner.run(owner.close())


def _compare(runner: asyncio.Runner, owner: Connection, name: str) -> None:
    model = models()[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(nearly_good(name), min_size=20, max_size=20))
    def compare(payloads: list[Any]) -> None:
        texts = [json_text(data) for data in payloads]
        said = runner.run(judged(owner, model, texts))
        strict = [(text, why) for text, why in zip(texts, said, strict=True) if why and fits(model, text)]
        assert not strict

    compare()


ID = "7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c11"
SECRET = "4000 1234 5678"
CAUGHT: list[tuple[str, Any, str]] = [
    # What is missing, unknown, or of another kind.
    ("cancel_order", {}, "data.order_id is missing"),
    ("cancel_order", {"orderId": None}, "data.order_id must be a UUID, not null"),
    ("cancel_order", {"order_id": SECRET}, "data.order_id must be a UUID"),
    ("cancel_order", {"order_id": ID, "colour": SECRET}, "data.colour is unknown"),
    ("cancel_order", {"order_id": ID, SECRET: 1}, "data.‹key› is unknown"),
    ("Numbers", {"whole": [1]}, "data.whole must be a whole number"),
    ("Numbers", {"whole": "many"}, "data.whole must be a whole number"),
    ("Numbers", {"whole": 1.5}, "data.whole must be a whole number"),
    ("Numbers", {"whole": 1, "flag": "perhaps"}, "data.flag must be true or false"),
    ("Numbers", {"whole": 1, "flag": 2}, "data.flag must be true or false"),
    ("Numbers", {"whole": 1, "money": {}}, "data.money must be a number, as text"),
    ("Numbers", {"whole": 1, "share": "half"}, "data.share must be a number"),
    ("Texts", {"plainText": 1}, "data.plain_text must be text"),
    ("Moments", {"at": "tomorrow"}, "data.at must be a date and time"),
    ("Moments", {"at": 0, "day": []}, "data.day must be a date"),
    ("Moments", {"at": 0, "clock": {}}, "data.clock must be a time of day"),
    ("Moments", {"at": 0, "lasts": "long"}, "data.lasts must be a duration"),
    ("monitor_orders", {"order_ids": ID}, "data.order_ids must be a list"),
    ("notify", {"metadata": []}, "data.metadata must be an object"),
    # Ranges and lengths.
    ("Numbers", {"whole": 1, "small": 0}, "data.small must be at least 1"),
    ("Numbers", {"whole": 1, "small": "11"}, "data.small must be at most 10"),
    ("Numbers", {"whole": 1, "share": 0}, "data.share must be more than 0"),
    ("Numbers", {"whole": 1, "share": "1.0"}, "data.share must be less than 1"),
    ("Numbers", {"whole": 1, "money": "0.009"}, "data.money must be at least 0.01"),
    ("Texts", {"plain_text": "", "short_text": "a"}, "data.short_text must have at least 2 characters"),
    ("Texts", {"plain_text": "", "short_text": "abcd"}, "data.short_text must have at most 3 characters"),
    ("monitor_orders", {"order_ids": [ID] * 1001}, "data.order_ids must have at most 1000 elements"),
    ("Collections", {"ids": []}, "data.ids must have at least 1 elements"),
    # Choices and patterns.
    ("aggregate", {"period": "yearly"}, "data.period must be one of daily, weekly"),
    ("Texts", {"plain_text": "", "side": "hold"}, "data.side must be one of buy, sell"),
    ("Texts", {"plain_text": "", "code": "1a"}, "data.code must match ^[a-z][0-9]+$"),
    # Within.
    ("monitor_orders", {"order_ids": [ID, SECRET]}, "data.order_ids[1] must be a UUID"),
    ("email_event", {"events": [{"kind": "bounce"}]}, "data.events[0].address is missing"),
    ("Collections", {"prices": {"a": "1", SECRET: "x"}}, "data.prices.‹key› must be a number, as text"),
    ("Collections", {"tree": {"name": "a", "branches": [{}]}}, "data.tree.branches[0].name is missing"),
    ("Collections", {"pair": [1]}, "data.pair must have at least 2 elements"),
    ("Unions", {"either": "many"}, "data.either must be a whole number, or data.either must be an object"),
    ("Unions", {"either": {}}, "data.either.name is missing"),
    ("stripe_webhook", {"raw_body": "a", "signature": "a"}, "data.id is missing, or data.received_at is missing"),
]  # fmt: skip


async def test_what_is_caught_is_said_in_a_sentence_without_a_value(owner: Connection) -> None:
    texts = [json.dumps(data) for _, data, _ in CAUGHT]
    said = [
        await judged(owner, models()[name], [text]) for (name, _, _), text in zip(CAUGHT, texts, strict=True)
    ]
    assert [why for (why,) in said] == [sentence for _, _, sentence in CAUGHT]
    assert [
        text for (name, _, _), text in zip(CAUGHT, texts, strict=True) if fits(models()[name], text)
    ] == []


async def test_a_judge_takes_ten_thousand_steps_and_leaves_the_rest_to_a_worker(owner: Connection) -> None:
    """A choice is a step of its own."""
    many = json.dumps({"either": 1, "several": [1] * 4_900 + [{}]})
    more = json.dumps({"either": 1, "several": [1] * 10_000 + [{}]})
    assert [why is None for why in await judged(owner, Unions, [many, more])] == [False, True]


async def test_choices_within_choices_cost_no_more_the_deeper_they_are(owner: Connection) -> None:
    """Two at each of thirty levels would be a thousand million looks; the deepest are left to a worker."""
    part = {
        "type": "object",
        "properties": {"t": {"anyOf": [{"$ref": "#/$defs/part"}, {"$ref": "#/$defs/part"}]}},
    }
    data: object = 1
    for _ in range(30):
        data = {"t": data}
    await owner.execute("set statement_timeout = '20s'")
    schema = json.dumps({"$ref": "#/$defs/part", "$defs": {"part": part}})
    assert await owner.fetchval("select (payload_problem($1, $2)).problem", schema, json.dumps(data)) is None
    assert (
        await owner.fetchval("select (payload_problem($1, $2)).problem", schema, '{"t": 1}')
        == "data.t must be an object"
    )


async def test_a_plain_pattern_is_published_and_read_alike(owner: Connection) -> None:
    words = [
        "evt_1",
        "a1",
        "a1\n",
        "0x" + "aF" * 20,
        "a-b c",
        "a-b cc",
        "",
        "x@",
        "/x@",
        "ä@x",
        "[",
        "\n@",
        "b",
    ]
    texts = [json.dumps({"word": word}) for word in words]
    for pattern in ("^evt_", "^[a-z][0-9]+$", "^0x[0-9a-fA-F]{40}$", "a-b c*", "[^/]+@x?"):
        model = create_model("One", word=Annotated[str, Field(pattern=pattern)])
        said = await judged(owner, model, texts)
        assert [why is None for why in said] == [fits(model, text) for text in texts], pattern
        assert len(set(said)) == 2


@pytest.mark.parametrize(
    "pattern", [r"^\w+$", "(a|b)", "a.b", "[[:alpha:]]", "a{2}{3}", "***=a", "(?i)a", "a+?", "ä"]
)
def test_a_pattern_that_the_two_may_read_otherwise_is_left_to_the_worker(pattern: str) -> None:
    assert not ALIKE.fullmatch(pattern)
