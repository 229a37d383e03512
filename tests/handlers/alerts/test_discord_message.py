"""A message to Discord keeps to every limit, whatever an alert says, and what it says is only ever read."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devstack.alerts.discord_form import faults_of
from handlers.clients.alerts.delivery import Alert
from handlers.clients.alerts.discord_message import RESENT, SHORTENED, discord_message

USER = UUID(int=7)
NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)
NASTY = st.text(
    alphabet=st.sampled_from("ab *_~`|<>[]()#@-+.:/\\\n\t\r1\u200b\u202e\u2028\u3164\x00😀é́‍"), max_size=30
) | st.text(max_size=30)
LONG: st.SearchStrategy[str] = st.tuples(NASTY, st.sampled_from([1, 1, 1, 40, 700])).map(
    lambda drawn: drawn[0] * drawn[1]
)


def an_alert(
    title: str = "Filled", message: str = "", user_id: UUID | None = USER, **metadata: object
) -> Alert:
    return Alert(
        id=uuid4(),
        user_id=user_id,
        alert_type="order_filled",
        severity="warning",
        title=title,
        message=message,
        metadata=metadata,
        created_at=NOON,
    )


def with_facts(metadata: dict[str, Any], title: str = "Filled", message: str = "") -> Alert:
    return an_alert(title, message).model_copy(update={"metadata": metadata})


def embeds_of(alert: Alert, *, is_resend: bool = False) -> list[dict[str, Any]]:
    message: Any = discord_message(alert, is_resend=is_resend)
    assert faults_of(message) == {}
    embeds: list[dict[str, Any]] = message["embeds"]
    return embeds


def active(text: str) -> str:
    """What is left for Markdown to read when all that is escaped is taken away."""
    return "".join(
        re.findall(
            r"[*_~`|<>\[\]#@]|://|^[-+]|^\d+[.)]\s", re.sub(r"\\[^a-zA-Z0-9\s]", "", text), re.MULTILINE
        )
    )


@settings(max_examples=60)
@given(
    title=LONG,
    message=LONG,
    metadata=st.dictionaries(NASTY, LONG | st.integers() | st.booleans() | st.none(), max_size=30),
    is_resend=st.booleans(),
)
def test_no_alert_makes_a_message_that_discord_refuses_or_reads_as_more_than_words(
    title: str, message: str, metadata: dict[str, Any], is_resend: bool
) -> None:
    alert = with_facts(metadata, title, message)
    for embed in embeds_of(alert, is_resend=is_resend):
        texts = [embed.get("title", ""), embed.get("description", "")]
        texts += [text for one in embed.get("fields", []) for text in (one["name"], one["value"])]
        assert [active(text) for text in texts] == [""] * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "@everyone",
        "@here",
        "<@123456789012345678>",
        "<@&123456789012345678>",
        "<#123456789012345678>",
        "<t:0:R>",
        "<a:name:123456789012345678>",
        "</command:123456789012345678>",
        "[your account](https://evil.example)",
        "[a\u200b](<https://evil.example>)",
        "https://evil.example/login",
        "https://discord.com@evil.example",
        "# heading",
        "-# small",
        "> quote",
        ">>> all of it",
        "```\ncode\n```",
        "`code`",
        "||spoiler||",
        "**bold** __under__ ~~gone~~ _so_",
        "- item\n* item\n+ item\n1. item",
        "\\@everyone \\\\@here",
    ],
)
def test_signs_of_markdown_are_shown_and_do_nothing(text: str) -> None:
    [embed] = embeds_of(an_alert(text, text, Symbol=text))
    for said in (embed["title"], embed["description"], embed["fields"][0]["value"]):
        assert active(said) == ""


def test_what_is_read_is_what_was_said() -> None:
    said = "10 AAPL at 190.10 (limit 190.20), 50% done: #5 [a_b] *now*"
    [embed] = embeds_of(an_alert(message=said))
    assert re.sub(r"\\(?=[^a-zA-Z0-9\s])", "", embed["description"]) == said


def test_letters_that_turn_or_hide_words_are_left_out() -> None:
    [embed] = embeds_of(an_alert("a\u202egnp.exe\u2066", "x\u200by\u2060z\ufeff\x00\x1b[31m"))
    assert embed["title"] == "agnp.\u200cexe"
    assert embed["description"] == "xyz\\[31m"


def test_the_one_link_is_that_of_the_metadata() -> None:
    url = "https://pay.example/i/acct_1*a_b"
    [embed] = embeds_of(
        an_alert(message=f"Open {url}, not {url}.evil.example or https://evil.example", url=url)
    )
    assert embed["url"] == url
    assert embed["description"].startswith(f"Open {url}, not ")
    assert embed["description"].count("://") == 1
    [other] = embeds_of(an_alert(url="javascript:alert(1)"))
    assert "url" not in other


def test_a_long_text_goes_on_in_a_second_part_and_is_shortened_at_the_end_with_a_mark() -> None:
    words = "word " * 1000
    first, second = embeds_of(an_alert(message=words))
    assert first["description"] + " " + second["description"] == words.strip()
    first, second = embeds_of(an_alert(message=words * 2))
    assert second["description"].endswith("word" + SHORTENED)
    assert 5900 < len(first["description"] + second["description"]) < 6000
    [only] = embeds_of(an_alert("t" * 300))
    assert only["title"].endswith(SHORTENED)
    assert len(only["title"]) == 256


def test_a_cut_never_parts_a_sign_from_what_makes_it_harmless() -> None:
    for more in range(4):
        first, second = embeds_of(an_alert(message="x" * more + "*" * 2500))
        assert (active(first["description"]), active(second["description"])) == ("", "")


def test_letters_are_counted_as_discord_counts_them() -> None:
    [embed] = embeds_of(an_alert(message="😀" * 4096))
    assert embed["description"] == "😀" * 4096


def test_facts_without_words_are_left_out_and_too_many_are_counted() -> None:
    [embed] = embeds_of(
        an_alert(empty="", blank=" \u200b\u3164", nothing=None, price="190.10", is_paper=True, order_id="9")
    )
    assert [(one["name"], one["value"]) for one in embed["fields"]] == [
        ("Price", "190.10"),
        ("Is paper", "yes"),
    ]
    [many] = embeds_of(with_facts({f"fact_{number}": str(number) for number in range(60)}))
    assert len(many["fields"]) == 25
    assert many["fields"][-1] == {"name": "…", "value": "and 36 more", "inline": True}
    large = embeds_of(with_facts({f"fact_{number}": "v" * 1500 for number in range(5)}, message="m" * 6000))
    assert large[-1]["fields"][-1]["value"] == "and 4 more"


def test_operators_see_ids_and_users_do_not() -> None:
    [embed] = embeds_of(an_alert(user_id=None, order_id="9"))
    assert embed["fields"][0]["value"] == "9"


def test_nobody_is_mentioned_and_a_copy_says_that_it_is_one() -> None:
    assert discord_message(an_alert())["allowed_mentions"] == {"parse": []}
    assert discord_message(an_alert(), is_resend=True)["content"] == RESENT
    assert "content" not in discord_message(an_alert())
