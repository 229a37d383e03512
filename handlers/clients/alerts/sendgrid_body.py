"""The requests that mails go to SendGrid in: which of them go together, and the JSON of each.

What the documentation of `/v3/mail/send` allows, and we keep to:

    1,000 personalizations in a request, each address once in it, and nobody sees who else is in it
    30 MB in a request; 10,000 bytes of substitutions per personalization (newer pages say 50,000)
    no letters beyond ASCII in `from`; no headers of SendGrid's own

Each mail has words of its own, and a request has one content. So what the mails of a request have in common at their
beginning and end is the content, and the rest is a substitution, by a name that nobody can guess: words of a user that
looked like it would be replaced too. A mail whose rest is too long for that goes as a request of its own.
"""
# The library has no types of its own, and this is its only place:
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from unicodedata import normalize

from handlers.clients.alerts.mail import Mail, Sender, headers_of

MOST: Final = 1000
MOST_SUBSTITUTED: Final = 10_000
_NAMES: Final = 100
"""Bytes that the names of the substitutions and the custom arguments take, which are counted with them."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail in a request: what it has for itself between the common beginning and end."""

    place: int
    """Among those that were sent in the same moment."""
    mail: Mail
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One request's mails, and the content around what each has for itself."""

    letters: Sequence[Letter]
    text: tuple[str, str]
    html: tuple[str, str]

    def of(self, letters: Sequence[Letter]) -> Batch:
        """The same with fewer."""
        return Batch(letters, self.text, self.html)


def batches_of(mails: Sequence[Mail]) -> list[Batch]:
    """The mails as requests: an address once in each, and by itself what has too much for itself."""
    text, html = _around([one.text for one in mails]), _around([one.html for one in mails])
    turns: dict[str, int] = {}
    together: dict[int, list[Letter]] = {}
    batches: list[Batch] = []
    for place, mail in enumerate(mails):
        letter = Letter(place, mail, _between(mail.text, text), _between(mail.html, html))
        if len(letter.text.encode()) + len(letter.html.encode()) + _NAMES > MOST_SUBSTITUTED:
            batches.append(Batch([Letter(place, mail, "", "")], (mail.text, ""), (mail.html, "")))
            continue
        turn = turns[mail.to.lower()] = turns.get(mail.to.lower(), -1) + 1
        together.setdefault(turn, []).append(letter)
    return batches + [Batch(letters, text, html) for letters in together.values()]


def body_of(batch: Batch, sender: Sender) -> bytes:
    """The JSON of a request."""
    from sendgrid.helpers import mail as words

    body = words.Mail(from_email=words.From(sender.address, _ascii(sender.name)))
    name = secrets.token_hex(8)
    text, html = _Slot(f"-t{name}-", batch.text), _Slot(f"-h{name}-", batch.html)
    for at, letter in enumerate(batch.letters):
        one = words.Personalization()
        one.add_to(words.To(letter.mail.to))
        one.subject = letter.mail.subject
        one.add_custom_arg(words.CustomArg("delivery_id", str(letter.mail.delivery_id)))
        for header, value in headers_of(letter.mail).items():
            one.add_header(words.Header(header, value))
        for slot, own in ((text, letter.text), (html, letter.html)):
            if own:
                one.add_substitution(words.Substitution(slot.name, own))
        body.add_personalization(one, index=at)
    body.add_content(text.content(any(one.text for one in batch.letters)), words.MimeType.text)
    body.add_content(html.content(any(one.html for one in batch.letters)), words.MimeType.html)
    body.tracking_settings = words.TrackingSettings(
        click_tracking=words.ClickTracking(enable=False, enable_text=False),  # links lead where they say
        open_tracking=words.OpenTracking(enable=False),
        subscription_tracking=words.SubscriptionTracking(enable=False),
    )
    return json.dumps(body.get(), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    around: tuple[str, str]

    def content(self, is_filled: bool) -> str:
        return (self.name if is_filled else "").join(self.around)


def _ascii(name: str) -> str | None:
    return normalize("NFKD", name).encode("ascii", "ignore").decode().strip() or None


def _around(texts: Sequence[str]) -> tuple[str, str]:
    """What all begin with, and what the rest of all ends with."""
    before = _beginning(texts)
    return before, _beginning([one[len(before) :][::-1] for one in texts])[::-1]


def _beginning(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    alike = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:alike]


def _between(text: str, around: tuple[str, str]) -> str:
    before, after = around
    return text[len(before) : len(text) - len(after)]
