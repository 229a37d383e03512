"""The crash lab: real workers under a seeded storm of faults, and the proof of what became of every job."""
