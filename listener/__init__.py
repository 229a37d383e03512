"""The public face of the worker: what a handler file imports, and nothing else."""

from listener.backoff import exponential
from listener.errors import ConfigError, DeliveryRefused, Reject, RetryAfter
from listener.jobs import Job, NewJob, Queue
from listener.keyring import Keyring
from listener.outcomes import Cancel, Snooze
from listener.periodic import cron, every
from listener.progress import Progress
from listener.redaction import strike_out
from listener.registry import Delivery, Payload, handler, webhook
from listener.resources import Setting, Settings, resource
from listener.traces import traceparent

__all__ = [
    "Cancel",
    "ConfigError",
    "Delivery",
    "DeliveryRefused",
    "Job",
    "Keyring",
    "NewJob",
    "Payload",
    "Progress",
    "Queue",
    "Reject",
    "RetryAfter",
    "Setting",
    "Settings",
    "Snooze",
    "cron",
    "every",
    "exponential",
    "handler",
    "resource",
    "strike_out",
    "traceparent",
    "webhook",
]
