"""The main job, played before your eyes on real parts."""
