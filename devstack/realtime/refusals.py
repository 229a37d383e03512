"""Refusals in Realtime's words: at a join, and later on a joined channel."""

from __future__ import annotations


class Refused(Exception):
    """Something that a client may not have.

    `code` leads the reason of a refused join; `late` is the sentence that ends a joined channel instead.
    """

    def __init__(self, code: str, message: str, late: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = f"{code}: {message}"
        self.late = message if late is None else late
