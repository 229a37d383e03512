"""Doubles of the providers that alerts leave by, for tests and the demo."""
