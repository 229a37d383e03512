"""Where this process sends its numbers and spans, as the environment names it; nowhere, when it names nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

from listener.resources import Setting

STATSD: Final = Setting(
    "PULSE_STATSD",
    "host:port of a Datadog agent, mostly 127.0.0.1:8125; the numbers go there by UDP",
    required=False,
    secret=False,
)
DATADOG_API_KEY: Final = Setting(
    "DATADOG_API_KEY",
    "Datadog, Organization Settings, API Keys; the numbers go there without an agent",
    required=False,
)
DATADOG_SITE: Final = Setting(
    "DATADOG_SITE",
    "Datadog, in the address of your account after app.: datadoghq.com (the default), datadoghq.eu, us5.datadoghq.com",
    required=False,
    secret=False,
)
DATADOG_API_BASE: Final = Setting(
    "DATADOG_API_BASE", "only to use a double of Datadog", required=False, secret=False
)
OTLP_HEADERS: Final = Setting(
    "OTEL_EXPORTER_OTLP_HEADERS", "whoever collects your traces names it", required=False
)
OTLP_TRACES_HEADERS: Final = Setting(
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "whoever collects your traces names it", required=False
)
SECRETS: Final = (DATADOG_API_KEY, OTLP_HEADERS, OTLP_TRACES_HEADERS)
"""What is there of them is never printed."""
_OTLP: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_HOST_AND_PORT = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_SITE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_BASE = re.compile(r"https?://[^/\s?#@]+")


@dataclass(frozen=True, slots=True)
class Datadog:
    """Its HTTP API."""

    base: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where to send; None and False: not there."""

    statsd: tuple[str, int] | None = None
    datadog: Datadog | None = None
    traces: bool = False
    """By OpenTelemetry's protocol; its own variables (`OTEL_…`) say the rest to its own library."""


def destinations_in(environment: Mapping[str, str]) -> tuple[Destinations, list[str]]:
    """What the environment names, and what is wrong with it, in sentences."""
    problems: list[str] = []
    statsd: tuple[str, int] | None = None
    if named := environment.get(STATSD.name):
        found = _HOST_AND_PORT.fullmatch(named)
        if found is None or not 0 < int(found[2]) < 65536:
            problems.append(f"{STATSD.name} must be host:port, for example 127.0.0.1:8125.")
        else:
            statsd = found[1].strip("[]"), int(found[2])
    datadog: Datadog | None = None
    if key := environment.get(DATADOG_API_KEY.name):
        site = environment.get(DATADOG_SITE.name) or "datadoghq.com"
        base = (environment.get(DATADOG_API_BASE.name) or f"https://api.{site}").rstrip("/")
        if not _SITE.fullmatch(site):
            problems.append(f"{DATADOG_SITE.name} must be a site of Datadog's, for example datadoghq.eu.")
        elif not _BASE.fullmatch(base):
            problems.append(f"{DATADOG_API_BASE.name} must look like http://127.0.0.1:8140.")
        elif not (key.isascii() and key.isprintable()):
            problems.append(
                f"{DATADOG_API_KEY.name} is no key of Datadog's: it has characters that none has."
            )
        else:
            datadog = Datadog(base, key)
    traces = any(environment.get(name) for name in _OTLP) and not _is_off(environment)
    if traces and not _can_trace():
        problems.append(
            f"{' or '.join(_OTLP)} is set, and OpenTelemetry is not installed:"
            " pip install 'pulseengine-workers[otel]'."
        )
    return Destinations(statsd, datadog, traces), problems


def _can_trace() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # not even its parents
        return False


def _is_off(environment: Mapping[str, str]) -> bool:
    """OpenTelemetry's own switches."""
    return (
        environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER", "otlp").lower() == "none"
    )
