"""Handlers that limits hold back, and that note when they run."""
