"""The handlers of the crash lab: each behaves in its own way, and none does anything."""
