"""The house itself: its files, its words, its commands."""
