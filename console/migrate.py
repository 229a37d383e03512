"""`pulse migrate`: brings the tables and functions of a database up to date."""

from argparse import Namespace
from collections.abc import Mapping
from importlib.util import find_spec

from console.command import DONE, Command, Group
from console.screen import Screen
from listener.config import DATABASE_URL, process_environment
from listener.errors import ConfigError
from listener.migrate import migrate, migrations, publish
from listener.registry import load
from listener.schemas import schemas_of


async def _run(_: Namespace, screen: Screen) -> int:
    environment = process_environment()
    if problem := DATABASE_URL.problem(environment):
        raise ConfigError([problem])
    files = migrations()
    applied = await migrate(environment[DATABASE_URL.name], files, tell=screen.progress)
    for one in applied:
        screen.done(one.label)
    screen.say(f"{len(applied)} applied, {len(files) - len(applied)} were there already.")
    published: Mapping[str, int] = {"published": 0}
    if find_spec("handlers") is not None:  # in a folder without, there are only the files
        published = await publish(environment[DATABASE_URL.name], schemas_of(load().handlers.values()))
        screen.say(f"{published['published']} schemas of payloads published, {published['new']} of them new.")
    screen.answer(
        {"applied": [one.label for one in applied], "there": len(files) - len(applied), "schemas": published}
    )
    return DONE


COMMAND = Command(
    "migrate",
    Group.SET_UP,
    "Apply what the database at DATABASE_URL lacks of sql/, and publish the payloads' schemas.",
    _run,
)
