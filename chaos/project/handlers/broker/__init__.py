"""Jobs of the crash lab in the queue broker."""
