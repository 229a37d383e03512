"""The keys of this environment, as far as one can tell without asking: which of them end soon."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from console.doctor.finding import Finding
from listener.keyring import PUBLIC_NAME, SERVICE_NAME, WORKER_NAME, words_of
from listener.keys import WHERE_KEYS, facts_of

_SOON = timedelta(days=14)


def look_at_keys(environment: Mapping[str, str]) -> list[Finding]:
    """Says which end within two weeks; one that has ended is refused before anybody looks."""
    soon = datetime.now(UTC) + _SOON
    findings: list[Finding] = []
    for name, mend in (
        (SERVICE_NAME, f"take a new one: {WHERE_KEYS}"),
        (WORKER_NAME, "pulse worker-key"),
        (PUBLIC_NAME, f"take a new one: {WHERE_KEYS}"),
    ):
        where, words, _ = words_of(environment, name)
        ends = [end for word in words if (end := facts_of(word).ends_at) is not None]
        # While one key replaces another both are there: the one that lasts counts.
        if ends and len(ends) == len(words) and max(ends) < soon:
            findings.append(
                Finding(
                    "key_ends",
                    f"{where} ends on {max(ends):%Y-%m-%d}",
                    "From then on every process that has it is refused, and Realtime closes its channels.",
                    mend,
                )
            )
    return findings
