"""The official JavaScript client gets what it expects from the REST side."""

import asyncio
import json
from pathlib import Path
from typing import Any

from devstack.gateway import Gateway
from tests.skips import SUPABASE_JS

EXPECTED: dict[str, tuple[int, object, str | None]] = {
    "insert": (201, {"job_type": "a"}, None),
    "bulk": (201, None, None),
    "again": (409, None, "23505"),
    "select": (206, [{"job_type": "a"}], None),
    "head": (200, None, None),
    "or": (200, [{"job_type": "b"}, {"job_type": "c"}], None),
    "upsert": (200, [{"job_type": "z"}], None),
    "update": (200, [{"status": "done"}], None),
    "delete": (204, None, None),
    "none": (200, None, None),
    "single": (406, None, "PGRST116"),
    "rpc": (200, 3, None),
    "rpcGet": (200, 3, None),
    "rpcRows": (200, [{"x": 3, "y": "t3"}], None),
    "rpcVoid": (204, None, None),
    "rpcError": (400, None, "PJ001"),
    "rpcNone": (404, None, "PGRST202"),
    "embed": (400, None, "PGRST200"),
}


async def test_client_sees(recorded_database: str) -> None:
    modules = SUPABASE_JS.path()
    script = Path(__file__).with_name("rest_javascript.mjs")
    async with Gateway(recorded_database) as gateway:
        node = await asyncio.create_subprocess_exec(
            *("node", script, modules, gateway.url, gateway.keys.secret),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complained = await node.communicate()
    assert node.returncode == 0, complained.decode()
    seen: dict[str, Any] = json.loads(said)
    assert {name: (each["status"], each["data"], each["code"]) for name, each in seen.items()} == EXPECTED
    assert (seen["select"]["count"], seen["head"]["count"]) == (2, 3)
