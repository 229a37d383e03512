"""The keys of this environment, as far as one can tell without asking: which of them end soon."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from console.doctor.finding import Finding
from listener.config import PUBLISHABLE_KEY, SUPABASE_SERVICE_ROLE_KEY, WORKER_KEY
from listener.keys import WHERE_KEYS, ends_at

_SOON = timedelta(days=14)


def look_at_keys(environment: Mapping[str, str]) -> list[Finding]:
    """Says which end within two weeks; one that has ended is refused before anybody looks."""
    now = datetime.now(UTC)
    findings: list[Finding] = []
    for setting, mend in (
        (SUPABASE_SERVICE_ROLE_KEY, f"take a new one: {WHERE_KEYS}"),
        (WORKER_KEY, "pulse worker-key"),
        (PUBLISHABLE_KEY, f"take a new one: {WHERE_KEYS}"),
    ):
        end = ends_at(environment.get(setting.name, ""))
        if end is not None and end < now + _SOON:
            findings.append(
                Finding(
                    "key_ends",
                    f"{setting.name} ends on {end:%Y-%m-%d}",
                    "From then on every process that has it is refused, and Realtime closes its channels.",
                    mend,
                )
            )
    return findings
