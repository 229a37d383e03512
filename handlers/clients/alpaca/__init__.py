"""Alpaca as an adapter."""
