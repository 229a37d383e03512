"""The database as handlers see it: the official Supabase client, and one way to call a SQL function."""

from collections.abc import Mapping
from typing import TypeAlias, cast

from pydantic_core import to_jsonable_python
from supabase import AsyncClient, PostgrestAPIError

Database: TypeAlias = AsyncClient
"""Made once per process, with the service key: it sees and may do everything, so handlers check whose row it is."""


class CallFailed(Exception):
    """A SQL function refused its work. Says what the database said, without details: those would quote rows."""


async def call(db: Database, function: str, **arguments: object) -> Mapping[str, object]:
    """Runs a SQL function as one transaction and gives the JSON object that it answers.

    Times, uuids and Decimals go out as text, so nothing is rounded on the way. Raises CallFailed; a broken connection
    raises as it is. Both are retried by the table, so a function that handlers call must be safe to repeat.
    """
    try:
        answer = await db.rpc(function, cast("dict[str, object]", to_jsonable_python(arguments))).execute()
    except PostgrestAPIError as error:
        raise CallFailed(f"{function}: {error.message} ({error.code})") from None
    return cast("Mapping[str, object]", answer.data)
