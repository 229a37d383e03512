"""Guesses what a misspelt name was meant to be, as PostgREST's `Perhaps you meant …` does."""

from __future__ import annotations

from collections.abc import Iterable

PIECES = (3, 2)  # lengths of the pieces by which names are first looked up


def nearest(word: str, words: Iterable[str], least: float) -> str | None:
    """The most similar of `words`, if its similarity (1 is equal) is at least `least`.

    Only words that share a piece of three letters, else of two, are compared at all.
    """
    known = {each.lower(): each for each in words}
    given = word.lower()
    if given in known:
        return known[given]
    for length in PIECES:
        pieces = _pieces(given, length)
        scores = {_similarity(given, each): each for each in known if pieces & _pieces(each, length)}
        if scores and (best := max(scores)) >= least:
            return known[scores[best]]
    return None


def _pieces(word: str, length: int) -> frozenset[str]:
    framed = f"-{''.join(letter for letter in word if letter.isalnum() or letter in ' ,')}-"
    return frozenset(framed[at : at + length] for at in range(len(framed) - length + 1))


def _similarity(one: str, other: str) -> float:
    """1 minus the share of letters to change, insert or delete."""
    row = list(range(len(other) + 1))
    for n, letter in enumerate(one, 1):
        corner, row[0] = row[0], n
        for m, its in enumerate(other, 1):
            corner, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, corner + (letter != its))
    return 1 - row[-1] / max(len(one), len(other), 1)
