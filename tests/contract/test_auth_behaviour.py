"""Auth request by request: refusals in both shapes, refresh tokens that are good for one use, and what a hash keeps."""

import asyncio
import hashlib
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from devstack.auth import passwords
from devstack.auth.shell import UnknownUser, token_for
from devstack.config import Config
from devstack.gateway import Gateway
from devstack.keys import Keys
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from tests.contract.auth_people import ALICE, BOB, PASSWORD, Plain
from tests.skips import POSTGRES_17
from tests.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
DATED = {"X-Supabase-Api-Version": "2024-01-01"}


@pytest.fixture
async def auth(gateway: Gateway) -> AsyncIterator[Plain]:
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        yield Plain(gateway, http)


def _password(email: str = ALICE, password: str = PASSWORD) -> dict[str, str]:
    return {"email": email, "password": password}


REFUSED: list[tuple[str, str, object, int, str]] = [
    ("POST", "token?grant_type=password", _password(BOB), 400, "invalid_credentials"),
    ("POST", "token?grant_type=password", _password(password="wrong"), 400, "invalid_credentials"),
    ("POST", "token?grant_type=password", {"email": ALICE}, 400, "invalid_credentials"),
    ("POST", "token?grant_type=password", {"password": PASSWORD}, 400, "validation_failed"),
    (
        "POST",
        "token?grant_type=password",
        {"phone": "1", "password": PASSWORD},
        422,
        "phone_provider_disabled",
    ),
    ("POST", "token?grant_type=password", {"email": 1}, 400, "bad_json"),
    ("POST", "token?grant_type=password", [], 400, "bad_json"),
    ("POST", "token?grant_type=pkce", {}, 501, "DEVSTACK"),
    ("POST", "token?grant_type=nope", {}, 400, "invalid_credentials"),
    ("POST", "token?grant_type=refresh_token", {"refresh_token": "short"}, 400, "validation_failed"),
    ("POST", "token?grant_type=refresh_token", {"refresh_token": "a" * 12}, 400, "refresh_token_not_found"),
    ("POST", "signup", _password(), 422, "user_already_exists"),
    ("POST", "signup", _password(BOB, "x" * 73), 400, "validation_failed"),
    ("POST", "signup", _password("no address"), 400, "validation_failed"),
    ("POST", "signup", _password(f"{'x' * 250}@example.com"), 400, "validation_failed"),
    ("POST", "signup", {"email": BOB}, 400, "validation_failed"),
    ("POST", "signup", {}, 422, "anonymous_provider_disabled"),
    ("POST", "signup", {"phone": "1", "password": PASSWORD}, 400, "phone_provider_disabled"),
    ("POST", "signup", _password(BOB) | {"data": {"a": "\0"}}, 500, "unexpected_failure"),
    ("GET", "user", None, 403, "bad_jwt"),  # the publishable key is for nobody
    ("GET", "admin/users", None, 403, "not_admin"),
    ("POST", "otp", {"email": ALICE}, 501, "DEVSTACK"),
    ("GET", "authorize?provider=github", None, 501, "DEVSTACK"),
]


async def test_refusals_in_both_shapes(auth: Plain) -> None:
    await auth.sign_in()
    seen: list[tuple[str, str, object, int, str]] = []
    for method, path, body, _, _ in REFUSED:
        older = await auth(method, path, body)
        told = older.json()
        assert (told["code"], told["error_code"]) == (older.status_code, older.headers["x-sb-error-code"])
        newer = await auth(method, path, body, **DATED)
        assert newer.json() == {"code": told["error_code"], "message": told["msg"]}
        assert newer.headers["x-supabase-api-version"] == "2024-01-01"
        seen.append((method, path, body, newer.status_code, told["error_code"]))
    assert seen == REFUSED


async def test_bodies_that_are_no_json(auth: Plain) -> None:
    for body in (b"", b"{", b'{"email": "\\ud800"}', b"\xff", b"[" * 100_000):
        refused = await auth.http.post(f"{auth.gateway.url}/auth/v1/signup", content=body)
        assert (refused.status_code, refused.json()["error_code"]) == (400, "bad_json")
    large = await auth("POST", "signup", {"email": "x" * (1 << 20)})
    assert (large.status_code, large.json()["error_code"]) == (413, "request_entity_too_large")


async def test_everything_that_the_page_lists_is_501(auth: Plain) -> None:
    section = PAGE.read_text().partition("<!-- auth -->")[2].partition("<!-- end of auth -->")[0]
    listed = re.findall(r"^\| `(\w+) /(\S+)` \| (?:`(.*)`)? ?\|$", section, re.MULTILINE)
    assert len(listed) > 20
    told = await auth.sign_in()
    for method, path, body in listed:
        is_admins = path.startswith(("admin", "invite"))
        answer = await auth(
            method,
            path.replace("ID", told["user"]["id"]),
            json.loads(body or "{}"),
            token=auth.gateway.keys.service_role if is_admins else told["access_token"],
        )
        assert answer.status_code == 501, f"{method} {path}: {answer.text}"
        assert "development stack" in answer.json()["msg"]


async def test_weak_password_tells_why(auth: Plain) -> None:
    refused = await auth("POST", "signup", _password(password="12345"), **DATED)
    assert refused.status_code == 422
    assert refused.json() == {
        "code": "weak_password",
        "message": "Password should be at least 6 characters.",
        "weak_password": {"reasons": ["length"]},
    }


async def test_somebody_unknown_takes_as_long_as_a_wrong_password(
    auth: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    is_right = passwords.is_right

    async def counted(password: str, hash_: str, connection: Any) -> bool:
        hashed.append(hash_)
        return await is_right(password, hash_, connection)

    await auth.sign_in()
    monkeypatch.setattr(passwords, "is_right", counted)
    answers = [
        await auth("POST", "token?grant_type=password", _password(email, "wrong")) for email in (ALICE, BOB)
    ]
    assert answers[0].content == answers[1].content
    assert len(hashed) == 2
    assert len({hash_.partition(",")[0] for hash_ in hashed}) == 1, "the same cost"


async def test_hashes_are_salted_and_compared_as_a_whole(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await auth.sign_in(ALICE)
    await auth.sign_in(BOB)
    kept = [
        row["encrypted_password"] for row in await owner.fetch("select encrypted_password from auth.users")
    ]
    assert len(set(kept)) == 2
    assert all(hash_.startswith("$scrypt$ln=14,r=8,p=1$") and PASSWORD not in hash_ for hash_ in kept)
    assert await passwords.is_right(PASSWORD, kept[0], owner)
    for broken in (kept[0][:-1], kept[0] + "A", "$scrypt$ln=14,r=8,p=1$$", "", "$argon2id$v=19$m=1$a$b"):
        assert not await passwords.is_right(PASSWORD, broken, owner)


async def test_hashing_leaves_the_loop_free(auth: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    scrypt = hashlib.scrypt

    def seen(*args: Any, **kwargs: Any) -> bytes:
        threads.append(threading.current_thread())
        return scrypt(*args, **kwargs)

    monkeypatch.setattr(hashlib, "scrypt", seen)
    await auth.sign_in()
    await auth.sign_in()
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def test_refresh_tokens_are_good_for_one_use(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    first = (await auth.sign_in())["refresh_token"]
    second = (await _refreshed(auth, first)).json()["refresh_token"]
    third = (await _refreshed(auth, second)).json()["refresh_token"]
    assert (await _refreshed(auth, second)).json()["refresh_token"] == third, "the answer may have been lost"
    assert (await _refreshed(auth, first)).status_code == 200, "ten seconds are forgiven"
    await owner.execute("update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds'")
    reused = await _refreshed(auth, second)
    assert (reused.status_code, reused.json()["error_code"]) == (400, "refresh_token_already_used")
    active = await owner.fetchval("select count(*) from auth.refresh_tokens where not revoked")
    assert active == 0, "the whole session is refused from now on"
    await owner.execute("update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds'")
    assert (await _refreshed(auth, third)).json()["error_code"] == "refresh_token_already_used"


async def test_two_that_refresh_at_once_get_one_token(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    first = (await auth.sign_in())["refresh_token"]
    answers = await asyncio.gather(*(_refreshed(auth, first) for _ in range(4)))
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert await owner.fetchval("select count(*) from auth.refresh_tokens") == 2


async def _refreshed(auth: Plain, token: str) -> httpx.Response:
    return await auth("POST", "token?grant_type=refresh_token", {"refresh_token": token})


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
    assert (await _refreshed(auth, other["refresh_token"])).json()["error_code"] == "refresh_token_not_found"


async def test_what_one_may_not_change_about_oneself(auth: Plain) -> None:
    token = (await auth.sign_in())["access_token"]
    for body, status in (
        ({"app_metadata": {"plan": "gold"}}, 403),
        ({"email": BOB}, 501),
        ({"phone": "1"}, 501),
    ):
        assert (await auth("PUT", "user", body, token=token)).status_code == status
    assert (await auth("PUT", "user", {"email": ALICE}, token=token)).status_code == 200


async def test_open_doors(auth: Plain) -> None:
    health = await auth("GET", "health")
    assert health.json()["name"] == "GoTrue"
    assert (await auth("GET", ".well-known/jwks.json")).json() == {"keys": []}
    settings = (await auth("GET", "settings")).json()
    assert settings["external"]["email"] is True
    assert settings["external"]["github"] is False
    assert settings["mailer_autoconfirm"] is True


async def test_pages_of_other_origins(auth: Plain) -> None:
    url = f"{auth.gateway.url}/auth/v1/token"
    asked = {"Origin": "http://page", "Access-Control-Request-Headers": "apikey,x-client-info"}
    first = await auth.http.options(url, headers=asked)
    assert (first.status_code, first.headers["access-control-allow-headers"]) == (200, "apikey,x-client-info")
    refused = await auth("POST", "token?grant_type=password", _password(), Origin="http://page")
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "X-Supabase-Api-Version" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("path", ["/storage/v1/object/x", "/functions/v1/hello", "/graphql/v1", "/nowhere"])
async def test_what_is_not_there_says_so(auth: Plain, path: str) -> None:
    answer = await auth.http.post(auth.gateway.url + path, headers={"Origin": "http://page"})
    assert answer.status_code == 501
    assert answer.json()["message"] == (
        f"{path} is not served by the development stack: it has /rest/v1, /realtime/v1 and /auth/v1."
    )
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_pages_of_people(auth: Plain) -> None:
    for number in range(3):
        await auth.sign_in(f"{number}@example.com")
    service = auth.gateway.keys.secret
    page = await auth("GET", "admin/users?page=1&per_page=2", apikey=service)
    assert [user["email"] for user in page.json()["users"]] == ["2@example.com", "1@example.com"]
    assert page.json()["aud"] == "authenticated"
    assert page.headers["x-total-count"] == "3"
    assert page.headers["link"] == (
        '</admin/users?page=2&per_page=2>; rel="next", </admin/users?page=2&per_page=2>; rel="last"'
    )
    found = await auth("GET", "admin/users?filter=1@", apikey=service)
    assert [user["email"] for user in found.json()["users"]] == ["1@example.com"]
    assert (await auth("GET", "admin/users?page=x", apikey=service)).status_code == 400
    assert (await auth("GET", "admin/users?sort=email", apikey=service)).status_code == 501
    assert (await auth("GET", "admin/users/x", apikey=service)).status_code == 404


async def test_triggers_of_the_project_run_and_may_refuse(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await owner.execute("""
        create table profiles (id uuid primary key references auth.users on delete cascade, name text);
        create function welcome() returns trigger language plpgsql security definer set search_path = '' as $$
        begin
          if new.email = 'bob@example.com' then raise exception 'not Bob'; end if;
          insert into public.profiles values (new.id, new.raw_user_meta_data ->> 'name');
          return new;
        end $$;
        create trigger welcome after insert on auth.users for each row execute function welcome();
    """)
    await auth("POST", "signup", _password() | {"data": {"name": "Alice"}})
    assert await owner.fetchval("select name from profiles") == "Alice"
    refused = await auth("POST", "signup", _password(BOB))
    assert (refused.status_code, refused.json()["msg"]) == (500, "Database error saving new user")
    assert await owner.fetchval("select count(*) from auth.users") == 1
    await owner.execute("create table books (reader uuid references auth.users)")
    await owner.execute("insert into books select id from auth.users")
    who = await owner.fetchval("select id from auth.users")
    held = await auth("DELETE", f"admin/users/{who}", apikey=auth.gateway.keys.secret)
    assert (held.status_code, held.json()["msg"]) == (500, "Database error deleting user")


async def test_rows_by_hand_fail_where_the_real_server_fails(
    auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await auth.sign_in()
    await owner.execute("update auth.users set confirmation_token = null")
    refused = await auth("POST", "token?grant_type=password", _password())
    assert (refused.status_code, refused.json()["msg"]) == (500, "Database error querying schema")
    await owner.execute("update auth.users set confirmation_token = '', instance_id = null")
    unseen = await auth("POST", "token?grant_type=password", _password())
    assert unseen.json()["error_code"] == "invalid_credentials"


async def test_bcrypt_takes_pgcrypto(auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    await auth.sign_in()
    await owner.execute("update auth.users set encrypted_password = '$2a$04$' || repeat('a', 53)")
    refused = await auth("POST", "token?grant_type=password", _password())
    assert refused.status_code == 501
    assert "pgcrypto" in refused.json()["msg"]


async def test_bcrypt_with_pgcrypto() -> None:
    binaries = POSTGRES_17.path()
    with throw_away_folder() as folder:
        async with Postgres(folder, binaries=binaries) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            async with Gateway(server.dsn()) as gateway, httpx.AsyncClient(timeout=PATIENCE) as http:
                auth = Plain(gateway, http)
                await auth.sign_in()
                owner = await asyncpg.connect(server.dsn())
                await owner.execute(
                    "update auth.users set encrypted_password = extensions.crypt($1, extensions.gen_salt('bf', 4))",
                    PASSWORD,
                )
                await owner.close()
                right = await auth("POST", "token?grant_type=password", _password())
                wrong = await auth("POST", "token?grant_type=password", _password(password="wrong one"))
                assert (right.status_code, wrong.status_code) == (200, 400)


async def test_config_of_the_project(database: str) -> None:
    config = Config(jwt_expiry=7, minimum_password_length=8, refresh_token_reuse_interval=0)
    async with Gateway(database, config=config) as gateway, httpx.AsyncClient(timeout=PATIENCE) as http:
        auth = Plain(gateway, http)
        assert (await auth("POST", "signup", _password(password="1234567"))).status_code == 422
        told = await auth.sign_in()
        claims = gateway.keys.verify(told["access_token"])
        assert (told["expires_in"], int(str(claims["exp"])) - int(str(claims["iat"]))) == (7, 7)
        assert claims["iss"] == f"{gateway.url}/auth/v1"
        second = (await _refreshed(auth, told["refresh_token"])).json()["refresh_token"]
        await _refreshed(auth, second)
        assert (await _refreshed(auth, told["refresh_token"])).json()[
            "error_code"
        ] == "refresh_token_already_used"
    async with (
        Gateway(database, config=Config(enable_signup=False)) as gateway,
        httpx.AsyncClient(timeout=PATIENCE) as http,
    ):
        refused = await Plain(gateway, http)("POST", "signup", _password(BOB))
        assert refused.json()["error_code"] == "signup_disabled"


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
