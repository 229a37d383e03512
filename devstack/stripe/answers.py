"""What the double of Stripe answers: the endpoints that our handlers use, over the books."""

import re
from collections.abc import Mapping
from typing import Any, Final

from devstack.stripe.books import Books, Json

MISSING: Final = "resource_missing"
SHELVES: Final = {
    "customers": "customers",
    "subscriptions": "subscriptions",
    "invoices": "invoices",
    "checkout/sessions": "sessions",
    "payment_intents": "intents",
    "charges": "charges",
    "refunds": "refunds",
    "disputes": "disputes",
    "events": "events",
    "invoice_payments": "invoice_payments",
}
"""Where each endpoint's objects are in the books."""
LISTED_BY: Final = {
    "charges": {"payment_intent": "payment_intent"},
    "disputes": {"charge": "charge"},
    "checkout/sessions": {"payment_intent": "payment_intent"},
    "invoice_payments": {"invoice": "invoice", "payment[payment_intent]": "payment.payment_intent"},
    "subscriptions": {},
    "events": {},
}
"""The endpoints that list, with the parameters that narrow the list and the field that each compares."""
ANYHOW: Final = {"limit", "starting_after", "created[gte]", "payment[type]", "status"}
EXPANDABLE: Final = {
    "customer": "customers",
    "subscription": "subscriptions",
    "latest_invoice": "invoices",
    "payment_intent": "intents",
    "latest_charge": "charges",
}
BEFORE_2025: Final = {"invoice_payments"}
"""What there was not, when objects had their old shapes."""


class Refused(Exception):
    """Becomes the error that Stripe would answer."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.code = status, kind, code


def answer(books: Books, method: str, path: str, words: Mapping[str, str], now: int) -> Json:
    """The object or list, rendered; changes the books where asked to. Raises Refused."""
    version, _, place = path.strip("/").partition("/")
    if method == "GET" and version == "v1":
        if place in LISTED_BY and not (books.old_shapes and place in BEFORE_2025):
            return _list(books, place, words)
        shelf, _, one = place.rpartition("/")
        if shelf in SHELVES:
            return books.rendered(there(_shelf(books, shelf), one))
    if (method, version) == ("GET", "v2") and place.startswith("core/events/"):
        return there(books.thin_events, place.removeprefix("core/events/"))
    if method != "GET" and version == "v1":
        return books.rendered(_change(books, method, place, words, now))
    raise unknown(method, path)


def unknown(method: str, path: str) -> Refused:
    """For what Stripe has not, or the double not."""
    return Refused(404, f"Unrecognized request URL ({method}: {path}).")


def there(shelf: Mapping[str, Json], wanted: str) -> Json:
    """The object, or the refusal that says that there is none."""
    if wanted not in shelf:
        raise Refused(404, f"No such object: '{wanted}'", code=MISSING)
    return shelf[wanted]


def expanded(books: Books, shown: Json, wanted: list[str]) -> Json:
    """The same, with the objects in place of their ids along each path such as `data.customer`."""
    for path in wanted:
        _expand(books, shown, path.split("."), path)
    return shown


def _expand(books: Books, shown: Json, steps: list[str], path: str) -> None:
    first, *rest = steps
    if first == "data":
        for one in shown["data"]:
            _expand(books, one, rest, path)
        return
    if first not in shown or len(steps) > 4:
        raise Refused(400, f"This property cannot be expanded ({path}).")
    if isinstance(shown[first], str):
        if first not in EXPANDABLE:
            raise Refused(400, f"This property cannot be expanded ({path}).")
        shelf: dict[str, Json] = getattr(books, EXPANDABLE[first])
        shown[first] = books.rendered(there(shelf, shown[first]))
    if rest and shown[first] is not None:
        _expand(books, shown[first], rest, path)


def _shelf(books: Books, place: str) -> dict[str, Json]:
    shelf: dict[str, Json] = getattr(books, SHELVES[place])
    return shelf


def _list(books: Books, place: str, words: Mapping[str, str]) -> Json:
    """The newest first, as Stripe lists."""
    narrow = LISTED_BY[place]
    asked = {name for name in words if not name.startswith("expand")}
    if strange := asked - set(narrow) - ANYHOW:
        raise Refused(400, f"Received unknown parameters: {', '.join(sorted(strange))}")
    found = [
        one
        for one in reversed(_shelf(books, place).values())
        if all(name not in words or _field(one, path) == words[name] for name, path in narrow.items())
        and one["created"] >= int(words.get("created[gte]", 0))
    ]
    if after := words.get("starting_after"):
        ids = [one["id"] for one in found]
        if after not in ids:
            raise Refused(400, f"No such object: '{after}'", code=MISSING)
        found = found[ids.index(after) + 1 :]
    limit = int(words.get("limit", 10))
    if not 1 <= limit <= 100:
        raise Refused(400, "Invalid integer: limit")
    page = [books.rendered(one) for one in found[:limit]]
    return {"object": "list", "data": page, "has_more": len(found) > limit, "url": f"/v1/{place}"}


def _field(one: Json, path: str) -> Any:
    for name in path.split("."):
        one = one[name]
    return one


def _change(books: Books, method: str, place: str, words: Mapping[str, str], now: int) -> Json:
    match method, place.split("/"):
        case "POST", ["customers"]:
            return books.new_customer(now, _metadata(words), words.get("email"))
        case "POST", ["customers", one]:
            found = there(books.customers, one)
            found["metadata"] |= _metadata(words)
        case "DELETE", ["customers", one]:
            there(books.customers, one)
            found = books.customers[one] = {"id": one, "object": "customer", "deleted": True}
        case "POST", ["subscriptions", one]:
            found = there(books.subscriptions, one)
            found["metadata"] |= _metadata(words)
            if "cancel_at_period_end" in words:
                found["cancel_at_period_end"] = words["cancel_at_period_end"] == "true"
        case "DELETE", ["subscriptions", one]:
            found = there(books.subscriptions, one)
            found |= {"status": "canceled", "canceled_at": now, "ended_at": now}
        case _:
            raise unknown(method, f"/v1/{place}")
    return found


def _metadata(words: Mapping[str, str]) -> dict[str, str]:
    pairs = ((re.fullmatch(r"metadata\[(.+)\]", name), value) for name, value in words.items())
    return {match[1]: value for match, value in pairs if match}
