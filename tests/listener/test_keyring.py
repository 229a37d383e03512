"""Which key is shown: the first that the project takes, whatever is in the files and whenever it comes there."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from supabase import PostgrestAPIError

from devstack.gateway import Gateway
from devstack.keys import Keys
from handlers.clients.database import database_of
from listener import keyfile
from listener.config import read_config
from listener.errors import ConfigError, StoreRefused
from listener.jobs import NewJob
from listener.keyring import Key, KeyEvent, KeyRefused, Keyring, KeyTaken, KeyUnusable, read_keys
from listener.store import Store, connected
from listener.tokens import Tokens, read_tokens

NAME = "SUPABASE_SERVICE_ROLE_KEY"
JOB = NewJob("maintenance", "prune")


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """One whose keys can be withdrawn."""
    async with Gateway(database, keys=Keys()) as running:
        yield running


class Ring:
    """A keyring over a file, and what it told."""

    def __init__(self, file: Path, first: str) -> None:
        self.file = file
        self.told: list[KeyEvent] = []
        self.learnt: set[str] = set()
        self.proven = 0
        environment = {NAME + "_FILE": str(file)}
        self.put(first)
        (key,) = read_keys(environment).keys
        self.ring = Keyring(
            key, partial(read_keys, environment), tell=self.told.append, learn=self.learnt.update
        )
        self.ring.follow(self.follow)

    def put(self, *keys: str) -> None:
        self.file.write_text(" ".join(keys))

    def follow(self) -> None:
        self.proven += 1

    @asynccontextmanager
    async def store(self, gateway: Gateway) -> AsyncIterator[Store]:
        async with connected(gateway.url, self.ring, "test-worker") as store:
            await store.enqueue([JOB])
            yield store


async def test_a_refused_call_is_made_again_with_the_key_that_the_file_holds_by_now(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = gateway.keys
    one = Ring(tmp_path / "key", keys.secret)
    async with one.store(gateway) as store:
        new = keys.new_secret()
        one.put(new)
        keys.withdrawn.add(keys.secret)
        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(store.enqueue([JOB]))
        assert (one.ring.now.value, one.ring.proven.value, one.proven) == (new, new, 1)
        assert one.told == [KeyRefused(f"{NAME}_FILE", another=True), KeyTaken(f"{NAME}_FILE")]
        assert new in one.learnt
        assert one.ring.problem is None


async def test_when_all_are_refused_they_are_tried_in_turns_until_one_is_good_again(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = gateway.keys
    other = keys.new_secret()
    one = Ring(tmp_path / "key", keys.secret)
    async with one.store(gateway) as store:
        keys.withdrawn.update({keys.secret, other})
        one.put(keys.secret, other)
        with pytest.raises(StoreRefused) as refused:
            await store.enqueue([JOB])
        assert refused.value.status == 401
        problem = one.ring.problem
        assert problem is not None
        assert f"{NAME}_FILE: the project refuses the key (HTTP 401)" in problem
        assert "read again at once" in problem
        keys.withdrawn.remove(other)
        with pytest.raises(StoreRefused):
            await store.enqueue([JOB])  # the turn of the first one
        await store.enqueue([JOB])
        assert one.ring.problem is None
        assert one.ring.proven.value == other


async def test_a_new_key_is_not_shown_to_anybody_else_before_the_project_has_taken_it(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = gateway.keys
    one = Ring(tmp_path / "key", keys.secret)
    async with one.store(gateway) as store:
        one.put("sb_secret_not_of_this_project")
        assert await one.ring.look()
        assert one.ring.proven.value == keys.secret
        await store.enqueue([JOB])
        assert (one.ring.now.value, one.proven) == (keys.secret, 0)
        one.put("garbage")
        assert not await one.ring.look()
        (unusable,) = [event for event in one.told if isinstance(event, KeyUnusable)]
        assert "garbage" not in unusable.problem
        await store.enqueue([JOB])


async def test_a_late_answer_to_the_key_before_does_not_bring_it_back(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = gateway.keys
    one = Ring(tmp_path / "key", keys.secret)
    async with one.store(gateway) as store:
        before = one.ring.now
        one.put(keys.new_secret(), keys.secret)
        assert await one.ring.look()
        await store.enqueue([JOB])
        one.ring.accepted(before)
        assert one.ring.proven is one.ring.now is not before


async def test_a_handlers_database_shows_the_new_key_and_repeats_what_was_refused(
    gateway: Gateway, tmp_path: Path
) -> None:
    keys = gateway.keys
    one = Ring(tmp_path / "key", keys.secret)
    async with database_of(gateway.url, one.ring) as db:
        await db.table("failed_jobs").select("id").execute()
        one.put(keys.new_secret())
        keys.withdrawn.add(keys.secret)
        await db.table("failed_jobs").select("id").execute()
        assert one.proven == 1
        # Who asks as somebody else is not made more than that.
        db.postgrest.auth(keys.mint("authenticated", sub="6f9619ff-8b86-d011-b42d-00cf4fc964ff"))
        with pytest.raises(PostgrestAPIError, match="permission denied"):
            await db.table("failed_jobs").select("id").execute()


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({NAME + "_FILE": "/nowhere/at/all"}, "cannot be read (No such file or directory)"),
        ({NAME + "_FILE": "{empty}"}, "a file that is empty"),
        ({NAME + "_FILE": "{binary}"}, "a file that is no text"),
        ({NAME + "_FILE": "{pipe}"}, "names no file, but a folder, a pipe or a device. Write it into a file"),
        ({NAME + "_FILE": "{folder}"}, "names no file, but a folder"),
        ({NAME + "_FILE": "{empty}", NAME: Keys().secret}, "are both set"),
        ({NAME: "sb_secret_wrong! sb_publishable_12345678"}, "publishable key"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_at_start(
    environment: dict[str, str], told: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    files = {"folder": tmp_path, **{name: tmp_path / name for name in ("empty", "binary", "pipe")}}
    given = {name: value.format(**files) for name, value in environment.items()}
    with pytest.raises(ConfigError, match="SUPABASE_SERVICE_ROLE_KEY") as refused:
        read_config({"SUPABASE_URL": "https://project.supabase.co", **given})
    assert told in str(refused.value)


async def test_a_mount_that_hangs_is_told_and_the_keys_in_use_go_on_until_it_is_back(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()

    class Hung(type(Path())):  # type: ignore[misc]  # the class of this platform
        def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
            assert back.wait(40)
            return Path(self).stat(follow_symlinks=follow_symlinks)

    one = Ring(tmp_path / "key", gateway.keys.secret)
    tokens = Tokens([], lambda: read_tokens({"PULSE_DOOR_TOKENS_FILE": str(one.file)}), one.told.append)
    monkeypatch.setattr(keyfile, "Path", Hung)
    monkeypatch.setattr(keyfile, "PATIENCE_SECONDS", 0.05)
    async with one.store(gateway) as store:
        for _ in range(3):
            await tokens.look()
            assert not await one.ring.look()
        await store.enqueue([JOB])
        names = ("PULSE_DOOR_TOKENS_FILE", f"{NAME}_FILE")
        slow = "names a file that could not be read within 3 s. Look at the disk or mount that it is on."
        assert one.told == [KeyUnusable(f"{name} {slow}") for name in names]
        assert sum(thread.name == "key file" for thread in threading.enumerate()) == 1, "a file holds one"
        new = gateway.keys.new_secret()
        one.put(new)
        back.set()
        monkeypatch.setattr(keyfile, "PATIENCE_SECONDS", 40)
        assert await one.ring.look()
        await store.enqueue([JOB])
        assert (one.ring.proven.value, one.told[2:]) == (new, [KeyTaken(f"{NAME}_FILE")])


def test_the_keys_of_a_file_are_what_settings_and_secrets_hold(tmp_path: Path) -> None:
    keys = Keys()
    other = keys.new_secret()
    (tmp_path / "key").write_text(f"{keys.secret}\n{other}\n")
    config = read_config(
        {"SUPABASE_URL": "https://project.supabase.co", NAME + "_FILE": str(tmp_path / "key")}
    )
    assert (config.key, config.settings[NAME], config.key_name) == (keys.secret, keys.secret, f"{NAME}_FILE")
    assert {keys.secret, other} <= set(config.secrets)
    assert keys.secret not in repr(Key(NAME, keys.secret, keys.secret))


def test_settings_without_a_key_say_which_is_missing() -> None:
    with pytest.raises(LookupError, match=f"{NAME} is not set"):
        Keyring.of({})
