"""A run's folder: its lock and config, its log, what made it, and when it stops."""
