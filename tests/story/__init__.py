"""What a newcomer is promised, done as a newcomer does it."""
