"""Refresh tokens are good for one use, access tokens hold or are refused with a reason, and sessions end."""

import asyncio
import json
import time

import asyncpg
import pytest

from devstack.auth.shell import UnknownUser, token_for
from devstack.keys import Keys
from tests.contract.auth_people import ALICE, BOB, Plain


async def test_refresh_tokens_are_good_for_one_use(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    first = (await auth.sign_in())["refresh_token"]
    second = (await auth.refresh(first)).json()["refresh_token"]
    third = (await auth.refresh(second)).json()["refresh_token"]
    assert (await auth.refresh(second)).json()["refresh_token"] == third, "the answer may have been lost"
    assert (await auth.refresh(first)).status_code == 200, "ten seconds are forgiven"
    await owner.execute("update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds'")
    reused = await auth.refresh(second)
    assert (reused.status_code, reused.json()["error_code"]) == (400, "refresh_token_already_used")
    active = await owner.fetchval("select count(*) from auth.refresh_tokens where not revoked")
    assert active == 0, "the whole session is refused from now on"
    await owner.execute("update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds'")
    assert (await auth.refresh(third)).json()["error_code"] == "refresh_token_already_used"


async def test_two_that_refresh_at_once_get_one_token(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    first = (await auth.sign_in())["refresh_token"]
    answers = await asyncio.gather(*(auth.refresh(first) for _ in range(4)))
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert await owner.fetchval("select count(*) from auth.refresh_tokens") == 2


async def test_tokens_that_do_not_hold(auth: Plain) -> None:
    keys = auth.gateway.keys
    told = await auth.sign_in()
    claims = keys.verify(told["access_token"])
    stranger = Keys(jwt_secret="another secret of at least 32 characters").sign(claims)
    without_session = {name: claims[name] for name in claims if name != "session_id"}
    refused = {
        keys.sign(claims | {"exp": int(time.time())}): (403, "bad_jwt", "token is expired"),
        keys.sign(claims | {"nbf": int(time.time()) + 99}): (403, "bad_jwt", "token is not valid yet"),
        stranger: (403, "bad_jwt", "signature is invalid"),
        told["access_token"][:-2]: (403, "bad_jwt", "signature is invalid"),
        "a.b": (403, "bad_jwt", "token contains an invalid number of segments"),
        keys.sign(claims | {"sub": "x"}): (400, "bad_jwt", "sub claim must be a UUID"),
        keys.sign(claims | {"session_id": "x"}): (403, "bad_jwt", "session_id claim must be a UUID"),
        keys.sign(claims | {"sub": claims["session_id"]}): (403, "user_not_found", "does not exist"),
        keys.sign(claims | {"session_id": claims["sub"]}): (403, "session_not_found", "does not exist"),
        keys.sign(without_session | {"aud": ""}): (400, "validation_failed", "Token audience"),
    }
    for token, (status, code, words) in refused.items():
        answer = await auth("GET", "user", token=token)
        assert (answer.status_code, answer.json()["error_code"]) == (status, code)
        assert words in answer.json()["msg"]
    nothing = await auth.http.get(f"{auth.gateway.url}/auth/v1/user")
    assert (nothing.status_code, nothing.json()["error_code"]) == (401, "no_authorization")


async def test_a_new_password_signs_out_everywhere_else(auth: Plain) -> None:
    own, other = await auth.sign_in(), await auth.sign_in()
    changed = await auth("PUT", "user", {"password": "another"}, token=own["access_token"])
    assert changed.status_code == 200
    assert (await auth("GET", "user", token=own["access_token"])).status_code == 200
    gone = await auth("GET", "user", token=other["access_token"])
    assert gone.json()["error_code"] == "session_not_found"
    assert (await auth.refresh(other["refresh_token"])).json()["error_code"] == "refresh_token_not_found"


async def test_tokens_from_the_shell(auth: Plain, database: str) -> None:
    url = f"{auth.gateway.url}/auth/v1"
    person = (await auth.sign_in())["user"]
    token = await token_for(database, ALICE.upper(), issuer=url)
    assert (await auth("GET", "user", token=token)).json() == person
    claims = auth.gateway.keys.verify(
        await token_for(database, person["id"], issuer=url, role="service_role")
    )
    assert (claims["sub"], claims["email"], claims["role"]) == (person["id"], ALICE, "service_role")
    expired = await token_for(database, person["id"], issuer=url, seconds=-5)
    assert "token is expired" in (await auth("GET", "user", token=expired)).json()["msg"]
    stranger = "00000000-0000-4000-8000-00000000000a"
    assert (
        json.dumps(auth.gateway.keys.verify(await token_for(database, stranger, issuer=url))).count(stranger)
        == 1
    )
    with pytest.raises(UnknownUser, match="sign up with it first"):
        await token_for(database, BOB, issuer=url)
