"""The queue `maintenance`: the house keeps itself in order."""
