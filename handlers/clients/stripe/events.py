"""Events as Stripe makes them, as far as we believe them: the common kind with a copy of its object, and the thin kind.

Of the copy we read the id alone, since it may be old. Only of an invoice to come there is nothing else to read.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_READ_ONLY = ConfigDict(frozen=True, hide_input_in_errors=True)


class ChangedObject(BaseModel):
    """Which object an event is about; a few events are about none that can be looked up."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="allow")

    id: str | None = None


class EventData(BaseModel):
    """Where an event carries its object."""

    model_config = _READ_ONLY

    object: ChangedObject


class StripeEvent(BaseModel):
    """An event."""

    model_config = _READ_ONLY

    id: str = Field(pattern="^evt_")
    type: str
    livemode: bool
    created: datetime
    data: EventData

    @property
    def object_id(self) -> str:
        """The object to look up; empty when there is none, which no object is called."""
        return self.data.object.id or ""


class _Related(BaseModel):
    model_config = _READ_ONLY

    id: str | None = None


class ThinEvent(BaseModel):
    """An event of the newer kind, which names its object and carries no copy."""

    model_config = _READ_ONLY

    object: Literal["v2.core.event"]
    id: str = Field(pattern="^evt_")
    type: str
    livemode: bool
    created: datetime
    related_object: _Related | None = None
    snapshot_event: str | None = Field(default=None, pattern="^evt_")
    """The same event of the common kind, where Stripe makes both."""

    def as_common(self) -> StripeEvent:
        """The event of the common kind that tells the same."""
        return StripeEvent(
            id=self.snapshot_event or self.id,
            type=self.type.removeprefix("v1."),
            livemode=self.livemode,
            created=self.created,
            data=EventData(object=ChangedObject(id=self.related_object and self.related_object.id)),
        )
