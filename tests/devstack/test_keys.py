"""Keys and tokens: those of `supabase start`, what the gateway swaps, and what does not hold."""

import time

import pytest

from devstack.keys import LOCAL, Keys, TokenError, mint, verify


def test_long_lived_keys_are_those_that_supabase_start_prints() -> None:
    assert LOCAL.anon.endswith("CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0")
    assert LOCAL.service_role.endswith("EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU")
    assert verify(LOCAL.anon)["role"] == "anon"


def test_minted_token_carries_its_claims() -> None:
    claims = verify(mint("authenticated", sub="me"))
    assert (claims["role"], claims["sub"]) == ("authenticated", "me")


@pytest.mark.parametrize(
    ("claim", "seconds", "message"),
    [("exp", -31, "JWT expired"), ("nbf", 60, "JWT not yet valid"), ("iat", 60, "JWT issued at future")],
)
def test_token_out_of_its_time_is_refused(claim: str, seconds: int, message: str) -> None:
    with pytest.raises(TokenError, match=message):
        verify(mint("anon", **{claim: time.time() + seconds}))


def test_a_remembered_token_expires_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    token = mint("anon")
    assert verify(token)
    later = time.time() + 2 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(TokenError, match="JWT expired"):
        verify(token)


@pytest.mark.parametrize("token", ["", "abc", "a.b.c", Keys(jwt_secret="another").mint("service_role")])
def test_token_of_somebody_else_is_refused(token: str) -> None:
    with pytest.raises(TokenError):
        verify(token)


def test_only_new_keys_are_swapped() -> None:
    secret, publishable = f"Bearer {LOCAL.service_role}", f"Bearer {LOCAL.anon}"
    assert LOCAL.authorization({"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}"}) == secret
    assert LOCAL.authorization({"apikey": LOCAL.secret}) == secret
    assert LOCAL.authorization({"apikey": LOCAL.publishable}) == publishable
    assert LOCAL.authorization({"apikey": LOCAL.secret, "Authorization": "Bearer user"}) == "Bearer user"
    assert LOCAL.authorization({"apikey": LOCAL.anon}) == LOCAL.anon, "bare, which PostgREST does not read"
    assert LOCAL.authorization({}) is None
