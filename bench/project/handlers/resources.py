"""The benchmark's handlers need nothing."""
