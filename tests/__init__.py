"""The tests: a real PostgreSQL, real clients, no doubles of our own parts."""
