"""What people are told: `notify` routes an alert, and each other file is a channel, or makes what channels send."""
