"""Auth request by request: refusals in both shapes, refresh tokens that are good for one use, and what a hash keeps."""

import json
import re
from pathlib import Path

import asyncpg
import httpx
import pytest

from devstack.config import Config
from devstack.gateway import Gateway
from tests.contract.auth_people import ALICE, BOB, PASSWORD, Plain, words
from tests.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
DATED = {"X-Supabase-Api-Version": "2024-01-01"}


REFUSED: list[tuple[str, str, object, int, str]] = [
    ("POST", "token?grant_type=password", words(BOB), 400, "invalid_credentials"),
    ("POST", "token?grant_type=password", words(password="wrong"), 400, "invalid_credentials"),
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
    ("POST", "signup", words(), 422, "user_already_exists"),
    ("POST", "signup", words(BOB, "x" * 73), 400, "validation_failed"),
    ("POST", "signup", words("no address"), 400, "validation_failed"),
    ("POST", "signup", words(f"{'x' * 250}@example.com"), 400, "validation_failed"),
    ("POST", "signup", {"email": BOB}, 400, "validation_failed"),
    ("POST", "signup", {}, 422, "anonymous_provider_disabled"),
    ("POST", "signup", {"phone": "1", "password": PASSWORD}, 400, "phone_provider_disabled"),
    ("POST", "signup", words(BOB) | {"data": {"a": "\0"}}, 500, "unexpected_failure"),
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
    refused = await auth("POST", "signup", words(password="12345"), **DATED)
    assert refused.status_code == 422
    assert refused.json() == {
        "code": "weak_password",
        "message": "Password should be at least 6 characters.",
        "weak_password": {"reasons": ["length"]},
    }


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
    refused = await auth("POST", "token?grant_type=password", words(), Origin="http://page")
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
    await auth("POST", "signup", words() | {"data": {"name": "Alice"}})
    assert await owner.fetchval("select name from profiles") == "Alice"
    refused = await auth("POST", "signup", words(BOB))
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
    refused = await auth("POST", "token?grant_type=password", words())
    assert (refused.status_code, refused.json()["msg"]) == (500, "Database error querying schema")
    await owner.execute("update auth.users set confirmation_token = '', instance_id = null")
    unseen = await auth("POST", "token?grant_type=password", words())
    assert unseen.json()["error_code"] == "invalid_credentials"


async def test_config_of_the_project(database: str) -> None:
    config = Config(jwt_expiry=7, minimum_password_length=8, refresh_token_reuse_interval=0)
    async with Gateway(database, config=config) as gateway, httpx.AsyncClient(timeout=PATIENCE) as http:
        auth = Plain(gateway, http)
        assert (await auth("POST", "signup", words(password="1234567"))).status_code == 422
        told = await auth.sign_in()
        claims = gateway.keys.verify(told["access_token"])
        assert (told["expires_in"], int(str(claims["exp"])) - int(str(claims["iat"]))) == (7, 7)
        assert claims["iss"] == f"{gateway.url}/auth/v1"
        second = (await auth.refresh(told["refresh_token"])).json()["refresh_token"]
        await auth.refresh(second)
        assert (await auth.refresh(told["refresh_token"])).json()[
            "error_code"
        ] == "refresh_token_already_used"
    async with (
        Gateway(database, config=Config(enable_signup=False)) as gateway,
        httpx.AsyncClient(timeout=PATIENCE) as http,
    ):
        refused = await Plain(gateway, http)("POST", "signup", words(BOB))
        assert refused.json()["error_code"] == "signup_disabled"
