"""Chains that payments are looked for on: what is asked of each, and who can be asked."""
