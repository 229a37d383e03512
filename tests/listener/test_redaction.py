"""What must not be read does not survive in any text that is stored or logged."""

import json
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from devstack.keys import LOCAL
from listener.redaction import Redactor, storable

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


def test_an_error_that_cannot_be_printed_is_still_told() -> None:
    told = Redactor().error(SyntaxError("m", ("f", 1, "no number", "text")))  # type: ignore[arg-type]  # on purpose
    assert told.error_class == "SyntaxError"


def test_what_is_kept_can_be_stored() -> None:
    assert storable({"a\0": ["b\ud800", 1, None, {"c": "d"}]}) == {"a␀": ["b\\ud800", 1, None, {"c": "d"}]}
