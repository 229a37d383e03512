"""Faults on real processes, and what they must not cost."""
