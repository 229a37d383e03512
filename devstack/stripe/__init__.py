"""A double of Stripe for tests and the demo."""
