"""One type of job for each way in which a limit counts (bench/limits.py has the limits)."""
