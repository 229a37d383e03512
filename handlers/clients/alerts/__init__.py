"""What carries alerts and digests: their words, their channels, and what all channels share."""
