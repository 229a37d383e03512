"""The families load as workers load them: everything asked for is offered, and nothing heavy comes along unasked."""

import subprocess
import sys

from handlers.clients.database import Database
from handlers.clients.stripe.client import StripeClient
from listener.registry import load


def test_the_payment_family_asks_for_its_key_and_its_webhook_for_the_secret() -> None:
    registry = load("handlers", ["payment"])
    assert "stripe_webhook" in registry.types("payment")
    assert {Database, StripeClient} <= {one.provides for one in registry.resources}
    required = {one.name for one in registry.handler_settings if one.required}
    assert required == {"SUPABASE_URL", "STRIPE_SECRET_KEY"}
    assert "/webhooks/stripe" in {one.path for one in registry.webhooks}
    assert "STRIPE_WEBHOOK_SECRET" in {one.name for one in registry.webhook_settings if one.required}


def test_a_worker_without_payments_needs_no_key_of_stripe() -> None:
    registry = load("handlers", ["maintenance"])
    assert registry.types("maintenance") == ["prune"]
    assert {one.name for one in registry.handler_settings if one.required} == {"SUPABASE_URL"}


def test_a_worker_of_alerts_starts_without_the_key_of_any_provider() -> None:
    registry = load("handlers", ["alerts"])
    assert {"notify", "discord", "email", "push"} <= set(registry.types("alerts"))
    assert {one.name for one in registry.handler_settings if one.required} == {"SUPABASE_URL"}


def test_providers_libraries_are_loaded_when_their_client_is_opened() -> None:
    program = (
        "import sys; from listener.registry import load; load();"
        "print(*sorted({'stripe', 'web3', 'eth_account', 'firebase_admin', 'sendgrid', 'schedule'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
