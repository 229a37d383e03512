"""Supabase without Docker, for development and tests: a real PostgreSQL, and REST and Realtime in front."""
