"""How large Realtime finds a payload: it measures not the JSON text but the Erlang term behind it."""

from __future__ import annotations

from typing import Final, cast

LARGEST_PAYLOAD: Final = 3_000 * 1_000 + 500  # bytes; what a local project allows
VERSION_BYTE: Final = 1


def too_large(payload: object) -> bool:
    """Whether a payload, parsed JSON or bytes, is over the limit."""
    size, left = VERSION_BYTE, [payload]
    while left:
        term = left.pop()
        size += _size(term)
        if isinstance(term, list):
            left += cast("list[object]", term)
        elif isinstance(term, dict):
            pairs = cast("dict[str, object]", term)
            left += pairs.keys()
            left += pairs.values()
    return size > LARGEST_PAYLOAD


def _size(term: object) -> int:
    """The bytes of a term, of a list or a map without what is in it."""
    match term:
        case None | bool():
            return {None: 5, True: 6, False: 7}[term]  # the atoms nil, true and false
        case int():
            return _size_of_integer(term)
        case float():
            return 9
        case str():
            return 5 + len(term.encode("utf-8", "replace"))
        case bytes():
            return 5 + len(term)
        case list():
            return 6 if term else 1
        case _:
            return 5


def _size_of_integer(number: int) -> int:
    if 0 <= number < 256:
        return 2
    if -(2**31) <= number < 2**31:
        return 5
    length = (abs(number).bit_length() + 7) // 8
    return (3 if length < 256 else 6) + length
