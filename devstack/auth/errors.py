"""What Auth answers when it refuses: GoTrue's statuses, codes and words, in the shape the caller's version wants."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

VERSION_HEADER: Final = "X-Supabase-Api-Version"
DATED: Final = "2024-01-01"
"""Callers that name this version or a later one get `{code, message}`; others get `{code: status, error_code, msg}`."""


@dataclass(slots=True)
class AuthError(Exception):
    """One refusal. `reasons` are why a password is weak."""

    status: int
    code: str
    message: str
    reasons: tuple[str, ...] = ()

    def body(self, asked_version: str | None) -> dict[str, object]:
        """The JSON body for a caller that sent this version header."""
        why: dict[str, object] = {"weak_password": {"reasons": list(self.reasons)}} if self.reasons else {}
        if is_dated(asked_version):
            return {"code": self.code, "message": self.message} | why
        return {"code": self.status, "error_code": self.code, "msg": self.message} | why

    def headers(self, asked_version: str | None) -> dict[str, str]:
        """The headers that go with it."""
        version = {VERSION_HEADER: DATED} if is_dated(asked_version) else {}
        return {"x-sb-error-code": self.code} | version


def is_dated(asked_version: str | None) -> bool:
    """Whether a caller with this version header reads the newer shape; what is no date counts as none."""
    return bool(asked_version and re.fullmatch(r"\d{4}-\d\d-\d\d", asked_version) and asked_version >= DATED)


def invalid(message: str) -> AuthError:
    """400 for a request that cannot be meant."""
    return AuthError(400, "validation_failed", message)


def wrong_credentials() -> AuthError:
    """The one answer to a wrong password and to an unknown person."""
    return AuthError(400, "invalid_credentials", "Invalid login credentials")


def bad_jwt(message: str, status: int = 403) -> AuthError:
    """An access token that does not hold."""
    return AuthError(status, "bad_jwt", message)


def failure(message: str) -> AuthError:
    """500 for what the database refused, a failing trigger of the project's own above all."""
    return AuthError(500, "unexpected_failure", message)


def not_implemented(sentence: str) -> AuthError:
    """501: the real server can do this and we cannot; the sentence says what there is instead."""
    return AuthError(501, "DEVSTACK", sentence)
