"""What somebody else wrote is only read: no header, tag, link or hidden letter of theirs gets into a mail of ours."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handlers.clients.alerts.alert_mail import alert_letter
from handlers.clients.alerts.delivery import Alert, Reader, Severity
from handlers.clients.alerts.discord_message import discord_message
from handlers.clients.alerts.mail import Mail, Sender, sendable
from handlers.clients.alerts.mail_frame import Facts, Letter, Link, Paragraph, is_link
from handlers.clients.alerts.plain_words import lines, one_line, without_links
from handlers.clients.alerts.smtp import message_of

APP, UNSUBSCRIBE = "https://app.example.com", "https://jobs.example.com/unsubscribe/abc"
# What clients that are eager make links of.
EAGER = re.compile(
    r"(?i)\b[a-z][a-z0-9+.-]*://\S|\bwww\.\w|\b(?:mailto|tel|javascript|data):[\w+]|\w@\w"
    r"|\b[\w-]+\.(?:com|net|org|io|example|evil|рф|xn--\w+)\b"
)
NASTY = st.sampled_from(
    [
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</td></table><h1>", '" onmouseover="x', "<!--",
        "http://evil.example/x", "HTTPS://EVIL.EXAMPLE", "www.evil.com", "evil.com", "me@evil.example",
        "ftp://evil.com/x", "javascript:alert(1)", "//evil.com", "\\\\evil.com\\x", "\r\nBcc: all@evil.example",
        "\n\n<b>", "\u202eevil", "\u2028x", "&lt;script&gt;", "&#60;b&#62;", "{inside}", "{0}", "%s", "\x00",
        "\x1b[31m",
        "a" * 300, "مرحبا", "👩\u200d🚀", "e\u0301" * 20, "https://app.example.com.evil.com/", "tel:+491234",
        "evil。com",
        "https://app.example.com@evil.com", "x.evil.com/?a=b&c", "=?utf-8?q?Bcc=3A_x=0D=0A?=",
    ]
)  # fmt: skip
CALM = settings(max_examples=100, deadline=None)  # a busy machine is no fault
WORDS = st.lists(NASTY | st.text(max_size=30), max_size=6).map(" ".join)


class Page(HTMLParser):
    """What a mail client sees: tags with their attributes, links, and the text between."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.text = ""
        self._in_sheet = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += "\n"
        self._in_sheet = tag == "style"
        for name, value in attrs:
            self.names.add(name)
            if name in ("href", "src", "background", "action"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_sheet = False

    def handle_data(self, data: str) -> None:
        if not self._in_sheet:
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def an_alert(
    title: str = "Filled",
    message: str = "10 AAPL",
    metadata: Mapping[str, object] | None = None,
    severity: Severity = "info",
    is_for_operators: bool = False,
) -> Alert:
    return Alert(
        id=uuid4(),
        user_id=None if is_for_operators else uuid4(),
        alert_type="order_filled",
        severity=severity,
        title=title,
        message=message,
        metadata=metadata or {},
        created_at=datetime(2026, 11, 28, 16, 38, tzinfo=UTC),
    )


def letter_of(alert: Alert, reader: Reader | None = None, is_resend: bool = False) -> tuple[str, Letter]:
    return alert_letter(
        alert, reader or Reader(), app_url=APP, unsubscribe_url=UNSUBSCRIBE, is_resend=is_resend
    )


@CALM
@given(title=WORDS, message=WORDS, name=WORDS, value=WORDS)
@example(title="</title><script>", message="]]>", name="x", value='"><a href="https://evil.example">')
def test_whatever_is_said_the_html_has_the_tags_and_links_of_our_frame(
    title: str, message: str, name: str, value: str
) -> None:
    plain = Page(letter_of(an_alert("T", "M", {"n": "v"}))[1].html())
    nasty = Page(letter_of(an_alert(title or "T", message, {name or "n": value or "v"}))[1].html())
    own = [tag for tag in nasty.tags if tag not in ("br", "tr", "td")]
    assert own == [tag for tag in plain.tags if tag not in ("br", "tr", "td")]
    assert nasty.names == plain.names
    assert nasty.links == [APP, UNSUBSCRIBE]


@CALM
@given(title=WORDS, message=WORDS, value=WORDS)
def test_whatever_is_said_no_client_finds_a_link_that_we_did_not_make(
    title: str, message: str, value: str
) -> None:
    subject, letter = letter_of(an_alert(title or "T", message, {"n": value or "v"}))
    for shown in (letter.text().replace(APP, "").replace(UNSUBSCRIBE, ""), Page(letter.html()).text):
        assert not EAGER.search(shown)
    assert "\n" not in subject


@CALM
@given(subject=WORDS, text=st.text(max_size=50).map(str.strip))
@example(subject="x\r\nBcc: all@evil.example\r\n\r\nbody", text="")
def test_whatever_the_subject_is_the_mail_has_the_headers_that_we_wrote(subject: str, text: str) -> None:
    mail = Mail(uuid4(), "ann@example.com", subject, f"{text}\n", f"<p>{len(text)}</p>", UNSUBSCRIBE)
    raw = message_of(mail, Sender("alerts@example.com", 'Pülse\u00a0Engine, "we" <us>'))
    read = message_from_bytes(raw, policy=default)
    assert sorted(read.keys()) == [
        "Auto-Submitted", "Content-Type", "Date", "From", "List-Unsubscribe", "List-Unsubscribe-Post", "MIME-Version",
        "Message-ID", "Subject", "To",
    ]  # fmt: skip
    assert str(read["Subject"]) == one_line(subject, 150)
    assert read["To"].addresses[0].addr_spec == "ann@example.com"
    assert read["From"].addresses[0].addr_spec == "alerts@example.com"


@CALM
@given(st.text())
def test_a_line_is_one_line_without_what_is_not_shown(said: str) -> None:
    line = one_line(said, 50)
    assert len(line) <= 50
    assert line.splitlines() in ([line], [])
    assert not set(line) & set(map(chr, [*range(32), 127, 0x200B, 0x202E, 0x2066, 0xFEFF]))
    assert not set(lines(said, 50)) & set(map(chr, [0, 13, 27, 0x202E, 0x2028]))


def test_words_that_are_no_links_are_left_as_they_are() -> None:
    for words in (
        "10 AAPL at 190.10",
        "12.50 €",
        "at 10:30",
        "1.2.3",
        "e.g. this",
        "Note: it rose",
        "50/50",
        "BRK.B",
    ):
        assert without_links(words) == words


def test_a_link_of_the_producer_stays_one_in_the_words_and_becomes_the_button() -> None:
    url = "https://pay.example/inv/1?x=1&y=2"
    words = f"Open {url}, not {url}.evil.com or http://evil.example."
    for trap in (f"{APP}@3232235777/x", f"{APP}:8443@3232235777", f"{APP}\\@evil"):  # a host without a dot
        assert f"{APP[:8]}app" not in without_links(trap, [APP])
    _, letter = letter_of(an_alert(message=words, metadata={"url": url}))
    assert Page(letter.html()).links == [url, UNSUBSCRIBE]
    assert f"Open {url}, not" in letter.text()
    assert f"{url}.evil.com" not in letter.text()
    assert "http://evil" not in letter.text()


@pytest.mark.parametrize(
    "url",
    ["http://evil.example", "javascript:alert(1)", "https://a@evil.example", "https://", "https://x.example/ y",
     "https://x.example/\"", "https://x.example:99999/",
     "https://ex\u0430mple.com", "data:text/html,x", "//evil.example", "https://[x", "\nhttps://x.y"],
)  # fmt: skip
def test_what_is_no_plain_address_of_the_web_is_no_link(url: str) -> None:
    assert not is_link(url)
    assert Page(letter_of(an_alert(metadata={"url": url}))[1].html()).links == [APP, UNSUBSCRIBE]


def test_a_mail_says_what_it_is_about_when_and_why() -> None:
    alert = an_alert(
        "Order rejected: AAPL", "Not enough buying power.", {"symbol": "AAPL", "order_id": "17"}, "error"
    )
    subject, letter = letter_of(alert, Reader(locale="de_DE", timezone="Europe/Berlin"))
    assert subject == "Error: Order rejected: AAPL"
    assert letter.text() == (
        "[Error] Order rejected: AAPL\n\n"
        "Not enough buying power.\n\n"
        "Symbol: AAPL\nTime: 28. November 2026, 17:38:00 MEZ\n\n"
        f"Open PulseEngine: {APP}\n\n"
        "-- \nYou get this because alerts by e-mail are on in your PulseEngine account.\n"
        f"Unsubscribe: {UNSUBSCRIBE}\n"
    )


def test_operators_see_the_ids_too_and_a_second_copy_says_so() -> None:
    alert = an_alert(metadata={"order_id": "17", "nested": {"a": 1}, "empty": ""}, is_for_operators=True)
    _, letter = letter_of(alert, Reader(locale="nonsense", timezone="Nowhere/At_All"), is_resend=True)
    assert "Order id: 17" in letter.text()
    assert "Nested" not in letter.text()
    assert "4:38:00" in letter.text()
    assert "had this mail before" in letter.text()


@pytest.mark.parametrize("is_for_operators", [False, True])
def test_mail_and_discord_show_the_same_facts_and_the_link_is_none(is_for_operators: bool) -> None:
    metadata = {"order_id": "17", "is_open": True, "note": " ", "url": "https://app.example.com/orders/17"}
    alert = an_alert(metadata=metadata, is_for_operators=is_for_operators)
    shown = [("Order id", "17"), ("Is open", "yes")][not is_for_operators :]
    _, letter = letter_of(alert)
    [facts] = [block.rows for block in letter.blocks if isinstance(block, Facts)]
    assert list(facts)[:-1] == shown  # the last is the time
    message: Any = discord_message(alert)
    assert [(one["name"], one["value"]) for one in message["embeds"][0]["fields"]] == shown
    assert message["embeds"][0]["url"] == metadata["url"]


def test_a_frame_without_anything_is_whole_too() -> None:
    letter = Letter("", [Paragraph(""), Facts([])], why="Because.")
    assert Page(letter.html()).links == []
    assert letter.text().endswith("-- \nBecause.\n")
    assert Link("a", APP).url == APP


@pytest.mark.parametrize(
    ("address", "takes"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.O'Hara+x@Sub.Example.COM", "Ann.O'Hara+x@Sub.Example.COM"),
        ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
        ("us@localhost", "us@localhost"),
        ("änn@example.com", None),
        ("ann@example", None),
        ("ann@example.com, bob@example.com", None),
        ("Ann <ann@example.com>", None),
        ("ann@example.com\nBcc: x@y.zz", None),
        ("ann@@example.com", None),
        ("=?utf-8?q?x=0D=0ABcc=3Ay?=@example.com", None),
        ("ann@exa..mple.com", None),
        ("ann@straße.example", None),  # which an older way to write it takes for strasse.example
        ("", None),
        ("a" * 65 + "@example.com", None),
        ("ann@" + "a" * 250 + ".com", None),
    ],
)
def test_an_address_is_one_address_or_none(address: str, takes: str | None) -> None:
    assert sendable(address) == takes
