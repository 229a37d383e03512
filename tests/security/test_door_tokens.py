"""The token of the door: compared in constant time, and refused without an accident whatever is sent for it."""

import ast
import re

from devstack.gateway import Gateway
from tests.house.tree import ROOT, files, name
from tests.listener.answering import JOB, TOKEN, count, door_of
from tests.listener.working import Connection
from tests.security.raw import ask, request

BODY = b'{"type": "prune"}'
WRONG = [
    b"",
    b"Authorization:",
    b"Authorization: Bearer",
    b"Authorization: Bearer ",
    b"Authorization: Bearer  " + TOKEN.encode(),
    b"Authorization: " + TOKEN.encode(),
    b"Authorization: Basic " + TOKEN.encode(),
    b"Authorization: Bearer " + TOKEN.encode() + b"x",
    b"Authorization: Bearer " + TOKEN.encode()[:-1],
    b"Authorization: Bearer " + TOKEN.upper().encode(),
    b"Authorization: Bearer " + TOKEN.encode() + b", " + TOKEN.encode(),
    b"Authorization: Bearer \xff\xfe\xfd",
    b"Authorization: Bearer \xed\xa0\x80",
    b"Authorization: Bearer \xc3\xa9",
    b"Authorization: Bearer " + b"a" * 8000,
    b"Authorization: Bearer " + TOKEN.encode() + b"\r\nAuthorization: Bearer wrong",
    b"Authorization: Bearer wrong\r\nAuthorization: Bearer " + TOKEN.encode(),
    b"X-Authorization: Bearer " + TOKEN.encode(),
    b"Proxy-Authorization: Bearer " + TOKEN.encode(),
    b"Cookie: Authorization=" + TOKEN.encode(),
]
_SECRET = re.compile(r"token|secret|signature|digest|password|expected|service_key|mac\b", re.IGNORECASE)
_NOT_THE_VALUE = re.compile(r"is None|len\(|isinstance|_name|\.name|canary")


async def test_only_the_token_itself_opens_the_door(gateway: Gateway, owner: Connection) -> None:
    async with door_of(gateway.url, token=TOKEN) as door:
        for headers in WRONG:
            said = await ask(door.url, request(body=BODY, headers=headers + b"\r\n" if headers else b""))
            assert said is not None, headers
            assert said.status == 401, (headers, said)
            assert TOKEN not in said.sentence
        said = await ask(door.url, request(target=f"/?token={TOKEN}", body=BODY))
        assert said is not None
        assert said.status == 401
        assert not door.told
        assert await count(owner) == 0
        for scheme in ("Bearer", "bearer"):
            assert (await door.post(JOB, {"Authorization": f"{scheme} {TOKEN}"}))[0] == 201


async def test_a_token_that_is_no_text_opens_the_door_and_breaks_nothing(gateway: Gateway) -> None:
    """A variable of the environment may hold any bytes."""
    token = b"clef\xe9-with-a-long-tail".decode(errors="surrogateescape")
    async with door_of(gateway.url, token=token) as door:
        right = b"Authorization: Bearer clef\xe9-with-a-long-tail\r\n"
        for headers, status in ((right, 201), (right.replace(b"\xe9", b"\xc3\xa9"), 401)):
            said = await ask(door.url, request(body=BODY, headers=headers))
            assert said is not None
            assert said.status == status


def test_no_secret_is_compared_letter_by_letter() -> None:
    """`==` ends at the first letter that differs, and so tells how many were right: hmac.compare_digest does not."""
    found: list[str] = []
    for folder in ("listener", "handlers"):
        for path in files("*.py", ROOT / folder):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare) and any(
                    not isinstance(how, ast.Is | ast.IsNot) for how in node.ops
                ):
                    text = ast.unparse(node)
                    if _SECRET.search(re.sub(r"'[^']*'", "''", text)) and not _NOT_THE_VALUE.search(text):
                        found.append(f"{name(path)}:{node.lineno}: {text}")
    assert not found
