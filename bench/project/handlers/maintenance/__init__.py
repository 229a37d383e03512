"""Jobs of the benchmark, on a queue that every database has."""
