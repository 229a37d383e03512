"""Tells OpenTelemetry of each attempt, as a span; only imported where `[otel]` is installed and a collector is named.

A span continues the trace that the row names (`jobs.traceparent`), so what inserted a job and all that ran for it are
one trace, retries beside each other. While a handler runs its span is the current one: spans of libraries become its
children, and what the handler inserts names it (`traces.py`). A span says which job it was and how the attempt ended,
never what it was about: no payload, no result, no text of an error.

OpenTelemetry's own library samples, gathers and sends (its variables, `OTEL_…`, say how), in a thread of its own and
with a queue that is bounded and drops what does not fit.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from listener.events import AttemptBegan, AttemptEnded, Event, Exported, NotExported
from listener.jobs import AttemptRef, Job
from listener.outcomes import Dead, Outcome, Retry
from listener.traces import carry

NAME = "OpenTelemetry"
_WORDS = TraceContextTextMapPropagator()
_SERVICE = "pulse-worker"
# It says in the log of its own what we say in ours, once for each span that it could not send.
_TALKATIVE = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Spans:
    """Receives every fact; those about attempts become spans."""

    def __init__(
        self, worker_id: str, emit: Callable[[Event], None], exporter: SpanExporter | None = None
    ) -> None:
        """`exporter`: instead of the one that the environment names. `emit` is called on this event loop."""
        logging.getLogger(_TALKATIVE).setLevel(logging.CRITICAL)
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            try:
                loop.call_soon_threadsafe(emit, event)
            except RuntimeError:  # the loop has closed: nobody listens any more
                return

        resource = Resource.create({"service.instance.id": worker_id})
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Telling(exporter or OTLPSpanExporter(), tell)))
        self._tracer = self._provider.get_tracer("pulseengine-workers")
        self._running: dict[AttemptRef, Span] = {}

    def __call__(self, event: Event) -> None:
        """Begins or ends a span."""
        match event:
            case AttemptBegan(job):
                self._begin(job)
            case AttemptEnded(job, outcome):
                self._end(job, outcome)
            case _:
                pass

    async def close(self, patience: timedelta) -> None:
        """Sends what has gathered, as far as there is time."""
        sender = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        sender.start()
        until = time.monotonic() + patience.total_seconds()
        while sender.is_alive() and time.monotonic() < until:  # noqa: ASYNC110 - a thread has no event for a loop
            await asyncio.sleep(0.02)

    def _begin(self, job: Job) -> None:
        before = _WORDS.extract({"traceparent": job.traceparent}) if job.traceparent else context.Context()
        span = self._tracer.start_span(
            f"{job.queue} {job.type}",
            before,
            SpanKind.CONSUMER,
            {
                "messaging.system": "pulse",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.queue,
                "messaging.message.id": str(job.id),
                "pulse.job.type": job.type,
                "pulse.job.attempt": job.attempt,
            },
        )
        self._running[job.ref] = span
        current = trace.set_span_in_context(span)
        context.attach(current)  # for the rest of the attempt's own task, with which its context ends
        words: dict[str, str] = {}
        _WORDS.inject(words, current)
        carry(words.get("traceparent"))

    def _end(self, job: Job, outcome: Outcome | None) -> None:
        span = self._running.pop(job.ref, None)
        if span is None:
            return
        span.set_attribute("pulse.job.outcome", outcome.kind if outcome is not None else "lost")
        if isinstance(outcome, Retry | Dead):
            span.set_attribute("error.type", outcome.error.error_class)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class _Telling(SpanExporter):
    """Sends by another exporter, and tells when that fails and when it succeeds again. In the sender's thread."""

    def __init__(self, inner: SpanExporter, tell: Callable[[Event], None]) -> None:
        self._inner = inner
        self._tell = tell
        self._away_since: float | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """One batch."""
        try:
            result, reason = self._inner.export(spans), "the collector does not take the spans"
        except Exception as error:  # noqa: BLE001 - the thread must live on
            result, reason = SpanExportResult.FAILURE, type(error).__name__
        if result is not SpanExportResult.SUCCESS:
            self._away_since = self._away_since or time.monotonic()
            self._tell(NotExported(NAME, reason, timedelta()))
        elif self._away_since is not None:
            self._tell(Exported(NAME, timedelta(seconds=time.monotonic() - self._away_since)))
            self._away_since = None
        return result

    def shutdown(self) -> None:
        """At the end."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """What the other one still has."""
        return self._inner.force_flush(timeout_millis)
