"""`python -m listener`: the command line `pulse`, which stands on top of this package and is found by its name."""

from importlib import import_module

if __name__ == "__main__":
    import_module("console.__main__").main()
