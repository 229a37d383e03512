"""What a refusal of SendGrid says: which of the recipients it is about, or whether it is about all of the request.

Its sentences are not repeated: they may quote the address.
"""

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.clients.alerts.told import NotSent, Refused, Told

_RECIPIENT: Final = re.compile(r"personalizations\.(\d+)(\..+)?")
_PLAIN: Final = re.compile(r"[a-z0-9_.]{1,80}")


class _Error(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    field: str | None = None


class _Body(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    errors: list[_Error]


@dataclass(frozen=True, slots=True)
class Errors:
    """Why a request was refused."""

    status: int
    fields: tuple[str, ...]
    """The parts of the request that it names; empty when it names none."""

    @property
    def named(self) -> AbstractSet[int]:
        """The personalizations that it names."""
        return {int(found[1]) for one in self.fields if (found := _RECIPIENT.fullmatch(one))}

    @property
    def about_all(self) -> bool:
        """Whether it names only what all recipients share, so that sending parts of them would be as wrong."""
        return self.status == 400 and bool(self.fields) and not self.named

    def told(self) -> Told:
        """What became of a mail that was refused by itself, or together with all others."""
        if self.status == 413:
            return Refused("too_large", "SendGrid takes no mail of this size.")
        if self.about_all:
            what = ", ".join(one for one in self.fields if _PLAIN.fullmatch(one)) or "something in it"
            return NotSent(
                "request_refused", f"SendGrid refuses all of the request, for {what}: see EMAIL_FROM."
            )
        if any(".to" in one for one in self.fields):
            return Refused("invalid_address", "SendGrid does not take this address.", suppress="invalid")
        return Refused("mail_refused", "SendGrid refuses this mail.")


def errors_in(status: int, body: bytes) -> Errors:
    """The refusal; one that cannot be read names nothing."""
    try:
        read = _Body.model_validate_json(body)
    except ValidationError:
        return Errors(status, ())
    return Errors(status, tuple(one.field for one in read.errors if one.field))
