"""A whole process that receives webhooks and runs payment jobs, for the tests that go through the door."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.handlers.conftest import Json, Owner
from tests.waiting import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def open_door(environment: dict[str, str]) -> AsyncIterator[str]:
    """The URL of a process that receives webhooks and runs payment jobs."""
    registry = load("handlers", ["payment"])
    config = read_config(environment, [*registry.handler_settings, *registry.webhook_settings])
    port = free_port()
    service = Service(config, registry, Plan(["payment"], port=port, schedules=False))
    async with running(service):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run())
        await until(
            "the worker is ready", lambda: not service.health().problems and service._store is not None
        )
        yield
        service.stop()


async def no_job_is_open(owner: Owner) -> bool:
    return not await owner.fetchval(
        "select count(*) from payment_jobs where finished_at is null and type = 'stripe_webhook'"
    )


async def send(door: str, body: bytes, signature: str) -> tuple[int, Json]:
    headers = {"Stripe-Signature": signature}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{door}/webhooks/stripe", data=body, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, (await answer.json()) if answer.status == 200 else {"said": text}
