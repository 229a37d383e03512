"""The queue's functions, called directly: what a job's life is when nothing but SQL takes part."""
