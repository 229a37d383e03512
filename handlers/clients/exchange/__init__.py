"""Exchanges as an adapter, through the library ccxt."""
