"""Money on a chain for development and tests: a local EVM chain, with a token of our own."""
