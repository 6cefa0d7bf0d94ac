"""The evaluation of a run: its numbers, diagnostics and pictures."""
