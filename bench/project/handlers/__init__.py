"""The handlers that the benchmark measures: as good as nothing to do."""
