"""What the workers do: one folder per queue, one file per job type; `clients/` speaks to providers."""
