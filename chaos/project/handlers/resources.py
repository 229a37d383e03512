"""The handlers of the crash lab need nothing."""
