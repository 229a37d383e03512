"""What the door says of itself is OpenAPI, and is true: what it calls a job is inserted, all else is refused."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from devstack.gateway import Gateway
from listener.openapi import described
from listener.registry import load
from tests.listener.answering import TOKEN, door_of

ANN = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return described(load(), "1.2.3")


def test_it_is_openapi_and_has_every_type_of_the_handlers(description: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(description).validate()
    registry = load()
    jobs = {name for name in description["components"]["schemas"] if name.startswith("job.")}
    assert jobs == {f"job.{queue}.{type_}" for queue, type_ in registry.handlers}
    text = json.dumps(description)
    assert "stripe_webhook" in text
    assert "Decimal" not in text


JOBS: list[tuple[dict[str, Any], bool]] = [
    ({"type": "sync_positions", "data": {"user_id": ANN}}, True),
    ({"type": "prune"}, True),
    ({"type": "prune", "priority": 3, "idempotency_key": "x"}, True),
    ({"type": "of_somebody_else", "queue": "reports", "data": {"a": 1}}, True),
    ({"type": "of_somebody_else"}, False),
    ({"type": "prune", "data": []}, False),
    ({"type": "prune", "status": "completed"}, False),
    ({"data": {}}, False),
]


async def test_what_it_calls_a_job_is_one(gateway: Gateway, description: dict[str, Any], owner: Any) -> None:
    await owner.execute("select create_queue('reports')")
    schema = description["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    judge: Any = Draft202012Validator({**schema, "components": description["components"]})
    async with door_of(gateway.url) as door:
        for job, is_one in JOBS:
            assert judge.is_valid(job) is is_one, job
            assert ((await door.post(job))[0] == 201) is is_one, job


async def test_it_is_shown_to_those_who_may_insert(gateway: Gateway) -> None:
    async with door_of(gateway.url, token=TOKEN) as door:
        assert (await door.ask("GET", "/openapi.json"))[0] == 401
        status, said = await door.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"})
        assert (status, said["openapi"]) == (200, "3.1.0")
        OpenAPIV31SpecValidator(said).validate()
