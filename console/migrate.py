"""`pulse migrate`: brings the tables and functions of a database up to date."""

from argparse import Namespace

from console.command import DONE, Command, Group
from console.screen import Screen
from listener.config import DATABASE_URL, process_environment
from listener.errors import ConfigError
from listener.migrate import migrate, migrations


async def _run(_: Namespace, screen: Screen) -> int:
    environment = process_environment()
    if problem := DATABASE_URL.problem(environment):
        raise ConfigError([problem])
    files = migrations()
    applied = await migrate(environment[DATABASE_URL.name], files)
    for one in applied:
        screen.done(one.label)
    screen.say(f"{len(applied)} applied, {len(files) - len(applied)} were there already.")
    screen.answer({"applied": [one.label for one in applied], "there": len(files) - len(applied)})
    return DONE


COMMAND = Command(
    "migrate", Group.SET_UP, "Apply the files of sql/ that the database at DATABASE_URL lacks.", _run
)
