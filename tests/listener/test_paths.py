"""Paths with parts that the sender fills in: one spelling each, and never two webhooks for one request."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devstack.gateway import Gateway
from listener.jobs import NewJob
from listener.paths import filled_in, path_problems
from listener.registry import Delivery, Registry, Webhook
from listener.resources import Settings
from tests.listener.answering import REGISTRY, count, door_of
from tests.listener.working import Connection

PATTERN = "/webhooks/shop/{shop_id}/{version}"


def test_what_the_sender_fills_in_comes_by_name() -> None:
    assert filled_in(PATTERN, "/webhooks/shop/a-1_B/2") == {"shop_id": "a-1_B", "version": "2"}
    assert filled_in("/webhooks/mail", "/webhooks/mail") == {}


@pytest.mark.parametrize(
    "path",
    [
        "/webhooks/shop/a/2/",
        "/webhooks/shop//2",
        "/webhooks/shop/a",
        "/webhooks/shop/../2",
        "/webhooks/shop/a%31/2",
        "/webhooks/shop/é/2",
        "/webhooks/shop/a/2\n",
        "/webhooks/shop/a.b/2",
        "/Webhooks/shop/a/2",
        f"/webhooks/shop/{'a' * 401}/2",
        "//webhooks/shop/a/2",
    ],
)
def test_what_is_spelled_otherwise_is_elsewhere(path: str) -> None:
    assert filled_in(PATTERN, path) is None


@settings(derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30), st.text(max_size=30))
def test_whatever_fits_is_spelled_as_the_pattern_with_its_parts(one: str, other: str) -> None:
    path = f"/webhooks/shop/{one}/{other}"
    found = filled_in(PATTERN, path)
    assert found is None or PATTERN.format(**found) == path


@pytest.mark.parametrize("path", ["mail", "/", "/a//b", "/{A}", "/{a}/{a}", "/a{b}", "/{}", "/a b", "/%41"])
def test_a_path_that_cannot_be_is_told(path: str) -> None:
    (problem,) = path_problems([path])
    assert repr(path) in problem


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("/a/{b}", "/a/c", True),
        ("/a/{b}", "/a/{c}", True),
        ("/{a}/b", "/a/{b}", True),
        ("/a/b", "/a/b", True),
        ("/a/{b}", "/b/{b}", False),
        ("/a/{b}", "/a/{b}/{c}", False),
    ],
)
def test_paths_that_one_request_could_mean_are_told(one: str, other: str, meet: bool) -> None:
    assert len(path_problems([one, other])) == meet


async def test_the_door_hands_a_webhook_what_was_filled_in(gateway: Gateway, owner: Connection) -> None:
    def receive(delivery: Delivery, _: Settings) -> NewJob:
        return NewJob("alerts", "email", dict(delivery.parameters))

    registry = Registry({}, (*REGISTRY.webhooks, Webhook(PATTERN, receive, ())), ())
    async with door_of(gateway.url, registry=registry) as door:
        assert (await door.post(b"", path="/webhooks/shop/a-1/2?x=/9"))[0] == 200
        assert await owner.fetchval("select data::text from jobs") == '{"shop_id": "a-1", "version": "2"}'
        assert (await door.post(b"", path="/webhooks/shop/a%2F1/2"))[0] == 404
        assert (await door.ask("GET", "/webhooks/shop/a-1/2"))[0] == 405
        assert (await door.ask("GET", "/health"))[0] == 200
        assert await count(owner) == 1
