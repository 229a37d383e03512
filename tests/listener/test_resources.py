"""Resources are opened once, handed out by type, and closed in the opposite order whatever happened."""

from collections.abc import AsyncIterator
from types import ModuleType

import pytest

from listener.errors import ConfigError
from listener.resources import Resource, Setting, Settings, opened, resource, resources_in

KEY = Setting("SOME_KEY", "the dashboard")


class Recorder:
    def __init__(self) -> None:
        self.did: list[str] = []

    def resources(self) -> tuple[Resource, Resource]:
        @resource(KEY)
        async def text(settings: Settings) -> AsyncIterator[str]:
            self.did.append("open text")
            try:
                yield settings[KEY.name]
            finally:
                self.did.append("close text")

        @resource()
        async def number(_settings: Settings) -> AsyncIterator[int]:
            self.did.append("open number")
            yield 42
            self.did.append("close number")

        module = ModuleType("some.resources")
        vars(module).update(text=text, number=number, other=KEY)
        found = resources_in(module)
        return found[str], found[int]


async def test_opened_in_order_and_closed_in_the_opposite() -> None:
    recorder = Recorder()
    async with opened(recorder.resources(), {"SOME_KEY": "value"}) as values:
        assert values == {str: "value", int: 42}
    assert recorder.did == ["open text", "open number", "close number", "close text"]


async def test_what_is_open_is_closed_when_the_next_one_fails() -> None:
    recorder = Recorder()
    text, _ = recorder.resources()

    async def broken(_settings: Settings) -> AsyncIterator[object]:
        raise OSError("cannot connect")
        yield  # noqa: V201

    with pytest.raises(OSError, match="cannot connect"):
        async with opened([text, Resource(float, (), broken)], {"SOME_KEY": "value"}):
            raise AssertionError("not reached")
    assert recorder.did == ["open text", "close text"]


async def test_an_error_inside_closes_and_passes() -> None:
    recorder = Recorder()
    text, _ = recorder.resources()
    with pytest.raises(RuntimeError, match="in the block"):
        async with opened([text], {"SOME_KEY": "value"}):
            raise RuntimeError("in the block")
    assert recorder.did == ["open text", "close text"]


def test_a_resource_says_what_it_provides_and_what_it_reads() -> None:
    text, number = Recorder().resources()
    assert (text.provides, text.settings) == (str, (KEY,))
    assert (number.provides, number.settings) == (int, ())


def test_two_ways_to_one_type_are_refused() -> None:
    async def one(_settings: Settings) -> AsyncIterator[str]:
        yield "one"

    async def two(_settings: Settings) -> AsyncIterator[str]:
        yield "two"

    module = ModuleType("some.resources")
    vars(module).update(one=resource()(one), two=resource()(two))
    with pytest.raises(ConfigError, match=r"some.resources opens one type in two ways"):
        resources_in(module)


@pytest.mark.parametrize(
    ("settings", "required", "is_told"),
    [({}, True, True), ({"SOME_KEY": ""}, True, True), ({"SOME_KEY": "x"}, True, False), ({}, False, False)],
)
def test_a_setting_tells_where_to_find_it(settings: Settings, required: bool, is_told: bool) -> None:
    told = Setting("SOME_KEY", "the dashboard", required=required).problem(settings)
    assert (told is not None) == is_told
    if told is not None:
        assert told == "SOME_KEY is not set. Find it here: the dashboard"
