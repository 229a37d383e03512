"""What must not be read does not survive in any text that is stored or logged."""

import asyncio
import base64
import html
import json
import re
import string
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from devstack.keys import LOCAL
from listener.redaction import Redactor, keep_at_hand, storable

# ‹ and › are ours; a word of the marks themselves would be "found" in them.
LETTERS = string.ascii_letters + string.digits + string.punctuation + " \n\t\"'\\äß€😀"
SECRETS = st.text(LETTERS, min_size=6, max_size=40).filter(lambda text: text not in "‹redacted›‹secret›")
VALUES = st.text(LETTERS, min_size=8, max_size=40).filter(lambda text: text not in "‹redacted›‹secret›")
KEYS = st.text(string.ascii_lowercase, min_size=1, max_size=3)


@given(secrets=st.lists(SECRETS, min_size=1, max_size=4), around=st.lists(st.text(), min_size=5, max_size=5))
def test_no_secret_survives(secrets: list[str], around: list[str]) -> None:
    text = "".join(part + secret for part, secret in zip(around, secrets, strict=False))
    redacted = Redactor(secrets).text(text)
    assert not [secret for secret in secrets if secret in redacted]


QUOTES: list[Callable[[object], str]] = [repr, json.dumps, str]


@given(secret=SECRETS, quote=st.sampled_from(QUOTES))
def test_no_secret_survives_in_quotes(secret: str, quote: Callable[[object], str]) -> None:
    redacted = Redactor([secret]).text(f"refused {quote({'key': secret})}")
    assert secret not in redacted
    assert json.dumps(secret)[1:-1] not in redacted


@given(secret=SECRETS, value=VALUES)
def test_a_path_of_the_payload_carries_no_secret(secret: str, value: str) -> None:
    assert secret not in Redactor([secret]).text(f"saw {value}", {secret: value})


PAYLOADS = st.recursive(
    st.none() | st.booleans() | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def leaves(value: object) -> list[str]:
    match value:
        case dict():
            return [leaf for inner in value.values() for leaf in leaves(inner)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON
        case list():
            return [leaf for inner in value for leaf in leaves(inner)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - JSON
        case str():
            return [value]
        case _:
            return []


@given(payload=st.dictionaries(KEYS, PAYLOADS), data=st.data())
def test_no_value_of_the_payload_survives(payload: dict[str, object], data: st.DataObject) -> None:
    quote = data.draw(st.sampled_from(QUOTES))
    error = Redactor().error(RuntimeError(f"could not send {quote(payload)}"), payload)
    for value in leaves(payload):
        assert value not in error.message
        assert value not in (error.stack or "")


def test_a_value_is_replaced_by_its_path() -> None:
    payload = {"user": {"name": "Alice Smith"}, "cards": ["4242424242424242"], "amount": 129900, "ok": True}
    text = Redactor().text("Alice Smith paid 129900 with 4242424242424242", payload)
    assert text == "‹user.name› paid ‹amount› with ‹cards[]›"


def test_short_values_stay_since_they_would_tear_every_text_apart() -> None:
    assert Redactor().text("try 1 of 4", {"n": 1, "m": "of"}) == "try 1 of 4"


@pytest.mark.parametrize(
    "secret",
    [
        "sk_" + "test_51H8abcDEF",
        "rk_" + "live_51H8abcDEF",
        "whsec" + "_abc/DEF+123=",
        LOCAL.secret,
        LOCAL.publishable,
        LOCAL.service_role,
        LOCAL.mint("authenticated"),
        "SG" + ".abcdefghijklmnopqrstuv.xyz",
        "https://discord.com/api/webhooks/123/abc-DEF_1".removeprefix("https://discord.com"),
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nMIIE and cut off",
        "alice@example.com",
    ],
)
def test_what_looks_like_a_secret_goes_unknown_as_it_is(secret: str) -> None:
    assert secret not in Redactor().text(f"could not use {secret}")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("postgresql://postgres:pass-word@host/db", "postgresql://‹redacted›@host/db"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: ‹redacted›"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_the_rest_of_the_text_stays(text: str, redacted: str) -> None:
    assert Redactor().text(text) == redacted


class Answer(BaseModel):
    balance: int
    owner: str


def test_a_validation_error_never_quotes_what_it_refused() -> None:
    answer = {"balance": "Alice, input_type=Smith", "owner": ["x\ny"], "card": "4242"}

    def read() -> None:
        try:
            Answer.model_validate(answer)
        except ValidationError as cause:
            raise RuntimeError("the provider's answer makes no sense") from cause

    with pytest.raises(RuntimeError) as raised:
        read()
    told = Redactor().error(raised.value)
    direct = Redactor().error(raised.value.__cause__ or raised.value)
    assert "the provider's answer makes no sense" in told.message
    for text in (told.stack, direct.message, direct.stack):
        assert text is not None
        assert "int_parsing" in text
        assert "Alice" not in text
        assert "Smith" not in text
        assert "x\\ny" not in text


def test_what_the_database_cannot_store_is_spelled_out() -> None:
    text = Redactor().text("a\x00b\ud800c")
    assert text == "a␀b\\ud800c"


def test_a_stack_names_the_whole_chain_and_is_cut_to_size() -> None:
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise ValueError("x" * 1_000_000) from cause

    with pytest.raises(ValueError, match="xxx") as raised:
        fail()
    told = Redactor().error(raised.value)
    assert len(told.message) == 2000
    assert told.stack is not None
    assert len(told.stack) == 8000


def test_deep_and_wide_payloads_are_walked() -> None:
    deep: dict[str, object] = {"name": "Alice Smith"}
    for _ in range(5000):
        deep = {"a": deep}
    assert "Alice" not in Redactor().text("no Alice Smith", deep)


def test_a_long_word_costs_no_time() -> None:
    """A pattern that looks at it from each of its letters would take hours, and the event loop with it."""
    word = "x" * 100_000
    assert word.startswith(Redactor().text(10 * word))
    assert Redactor().text(f"{'a.b-' * 10_000}c@example.com, alice@example.com") == "‹redacted›, ‹redacted›"


@pytest.mark.parametrize("start", [0, 1, 15_000, 29_000])
@pytest.mark.parametrize("length", [47, 500, 25_000])
def test_a_part_of_a_long_value_is_found_wherever_it_was_cut(start: int, length: int) -> None:
    body = "".join(f"Dear customer {n}, your card ends in {n * 7919}. " for n in range(900))
    quoted = body[start : start + length]
    told = Redactor().error(RuntimeError(f"cannot send: {quoted} … and so on"), {"body": body})
    for text in (told.message, told.stack or ""):
        assert not [at for at in range(0, len(quoted) - 19, 5) if quoted[at : at + 20] in text]
    assert told.message.replace(": ‹", ":‹").startswith("cannot send:‹data›")


def test_keys_that_may_be_values_are_not_told() -> None:
    payload = {"DE89370400440532013000": {"balance": "1200.50"}, "alice@example.com": ["Alice Smith"]}
    assert Redactor().text("1200.50 of Alice Smith", payload) == "‹*.balance› of ‹*[]›"


def test_replacements_are_not_replaced_again() -> None:
    """Keys that contain other values would let the text grow without end."""
    payload: dict[str, object] = {"abcdabcdabcd": "efgh", "efghefghefgh": "abcd", "x": "bcda"}
    assert Redactor().text("abcd efgh", payload) == "‹efghefghefgh› ‹abcdabcdabcd›"


def test_a_payload_with_too_many_values_lets_nothing_through() -> None:
    payload: dict[str, object] = {"rows": [f"value {n}" for n in range(5000)]}
    assert "value 4999" not in Redactor().text("cannot read value 4999", payload)


@pytest.mark.parametrize("text", ["eyJ-" * 20_000, "input_value=" * 8_000, "api_key=" * 10_000])
def test_hostile_texts_cost_little(text: str) -> None:
    began = time.process_time()
    Redactor().text(text)
    assert time.process_time() - began < 2


WRITTEN: list[Callable[[str], str]] = [
    quote,
    quote_plus,
    lambda text: quote(text, safe=""),
    lambda text: re.sub("%..", lambda match: match[0].lower(), quote(text, safe="")),
    html.escape,
    lambda text: json.dumps(json.dumps({"a": text})),
    lambda text: json.dumps(text, ensure_ascii=False),
    lambda text: repr(text.encode()),
    lambda text: repr(f'"it\'s" {text}'),
]


@pytest.mark.parametrize("write", WRITTEN)
def test_a_value_is_found_in_every_shape_in_which_libraries_quote(write: Callable[[str], str]) -> None:
    value = 'Zoë <O\'Neil> & "Söhne"/+100%'
    for redactor, payload in ((Redactor(), {"name": value}), (Redactor([value]), None)):
        text = redactor.text(f"cannot send {write(value)} now", payload)
        assert "Neil" not in text
        assert "neil" not in text
        assert "hne" not in text


@given(
    secret=st.text(LETTERS, min_size=16, max_size=40),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
)
def test_a_secret_is_found_in_base64_wherever_it_stands(secret: str, before: bytes, after: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = Redactor([secret]).text(f"Cookie: {encode(before + secret.encode() + after).decode()}")
        assert "‹secret›" in text


def test_keys_of_a_payload_that_are_no_names_are_values() -> None:
    payload = {"DE89 3704 0044": {"alice@home": 1}, "name": "x"}
    assert Redactor().text("no DE89 3704 0044 in name, alice@home", payload) == "no ‹*› in name, ‹*.*›"


def test_each_line_of_a_value_is_found_where_lines_are_indented() -> None:
    address = "Example Street 17\n12345 Exampletown\nab"
    group = ExceptionGroup(
        "many", [ValueError(address), ExceptionGroup("more", [KeyError("a"), ValueError(address)])]
    )
    told = Redactor().error(group, {"address": address})
    assert "Example" not in (told.stack or "")
    assert "12345" not in (told.stack or "")


@pytest.mark.parametrize("before", range(19_980, 20_001, 4))
def test_what_a_cut_tears_in_two_is_left_out(before: int) -> None:
    """What stands before it may shrink, and bring the torn end into what is kept."""
    note, name, secret = "a long note " * 100, "Alice Smith-Example", "a secret of ours"
    filling = (note * 20)[: before - 500] + "y" * 500
    for redactor, payload, torn in (
        (Redactor(), {"note": note, "name": name}, name),
        (Redactor([secret]), {"note": note}, secret),
    ):
        told = redactor.error(RuntimeError(filling + torn), payload)
        for text in (told.message, redactor.text("x" * 80_000 + filling + torn, payload)):
            assert torn[:6] not in text
        behind = redactor.error(RuntimeError(torn + (note * 60)[: 39_999 - before % 10 - 6]), payload)
        assert torn[-6:] not in (behind.stack or "")


def test_overlapping_values_go_as_one() -> None:
    payload = {"a": "Alice Smith", "b": "Smith-Example", "c": "ample St"}
    assert Redactor().text("to Alice Smith-Example Street", payload) == "to ‹a›reet"
    payload = {"a": "Alice Smith of Example", "b": "Smith"}
    assert Redactor().text("to Alice Smith of Example!", payload) == "to ‹a›!"


def test_thousands_of_values_that_contain_each_other_cost_little() -> None:
    letters = "abcdefgh" * 300
    nested: dict[str, object] = {"rows": [letters[: 4 + n] for n in range(1500)]}
    same: dict[str, object] = {"rows": ["a" * (4 + n) for n in range(1500)]}
    for payload, text in ((nested, letters * 30), (same, "a" * 80_000), (nested, "abcd " * 16_000)):
        began = time.process_time()
        told = Redactor().error(RuntimeError(text), payload)
        assert time.process_time() - began < 2
        assert "aaaa" not in told.message
        assert "abcd" not in told.message
        assert payload is not same or "withheld" in told.message  # nothing else of it would be left


async def test_what_is_said_while_a_job_is_served_is_without_its_values() -> None:
    """In its task, in the tasks and the threads that it starts, and nowhere else."""
    redactor = Redactor()

    def say() -> str:
        return redactor.text("mail to Alice Smith")

    async def serve(name: str) -> list[str]:
        keep_at_hand({"name": name})
        return [say(), await asyncio.to_thread(say), await asyncio.create_task(asyncio.to_thread(say))]

    served = await asyncio.gather(*(asyncio.create_task(serve(name)) for name in ("Alice Smith", "Bob")))
    assert served == [["mail to ‹name›"] * 3, ["mail to Alice Smith"] * 3]
    assert say() == "mail to Alice Smith"


def test_an_error_that_cannot_be_printed_is_still_told() -> None:
    told = Redactor().error(SyntaxError("m", ("f", 1, "no number", "text")))  # type: ignore[arg-type]  # on purpose
    assert told.error_class == "SyntaxError"


def test_what_is_kept_can_be_stored() -> None:
    assert storable({"a\0": ["b\ud800", 1, None, {"c": "d"}]}) == {"a␀": ["b\\ud800", 1, None, {"c": "d"}]}
