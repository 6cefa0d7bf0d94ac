"""This process: its hosts, flags, signals, progress and compiled programs."""
