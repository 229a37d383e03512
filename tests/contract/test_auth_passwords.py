"""Passwords are kept salted and slow, compared as a whole, and an unknown person takes as long as a wrong one."""

import hashlib
import threading
from typing import Any

import asyncpg
import httpx
import pytest

from devstack.auth import passwords
from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from tests.contract.auth_people import ALICE, BOB, PASSWORD, Plain, words
from tests.skips import POSTGRES_17
from tests.waiting import PATIENCE


async def test_somebody_unknown_takes_as_long_as_a_wrongwords(
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
        await auth("POST", "token?grant_type=password", words(email, "wrong")) for email in (ALICE, BOB)
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


async def test_bcrypt_takes_pgcrypto(auth: Plain, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
    await auth.sign_in()
    await owner.execute("update auth.users set encrypted_password = '$2a$04$' || repeat('a', 53)")
    refused = await auth("POST", "token?grant_type=password", words())
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
                right = await auth("POST", "token?grant_type=password", words())
                wrong = await auth("POST", "token?grant_type=password", words(password="wrong one"))
                assert (right.status_code, wrong.status_code) == (200, 400)
