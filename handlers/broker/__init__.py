"""Orders at brokers: sent once, followed to their end, and what accounts hold."""
