"""Stripe: what it is asked, what it tells, and what of it is kept."""
