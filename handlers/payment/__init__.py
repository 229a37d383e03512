"""The queue `payment`: what users pay for and what providers tell about it."""
