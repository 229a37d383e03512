"""Push messages through Firebase: gathered, sent with a token that is always fresh, each device its own outcome."""
