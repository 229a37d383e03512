"""Nothing that a request says becomes SQL: names and constants come out as they went in."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from devstack.rest.quoting import literal, quoted

HOSTILE = [
    "plain", "it's", "''", "\\", "\\'", "\\\\'; drop table x; --", '"', '""; --', "$1", "$$", "%", "ü\u2028'", "a\nb",
    "E'\\x27'", "/*", "*/ or true --", "{}", "'||'",
]  # fmt: skip


@pytest.fixture
async def connection(recorded_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    opened = await asyncpg.connect(recorded_database)
    yield opened
    await opened.close()


@pytest.mark.parametrize("conforming", ["on", "off"])
@pytest.mark.filterwarnings("ignore:.*")
async def test_constants_and_names_stay_what_they_are(
    connection: "asyncpg.Connection[asyncpg.Record]", conforming: str
) -> None:
    await connection.execute(
        f"set standard_conforming_strings = {conforming}; set escape_string_warning = off"
    )
    for text in HOSTILE:
        row = await connection.fetchrow(f"select {literal(text)}::text as {quoted(text)}")
        assert row is not None
        assert dict(row) == {text: text}


def test_a_text_ends_where_postgresql_would_end_it() -> None:
    assert (literal("a\0'b"), quoted('a\0"b')) == ("'a'", '"a"')
