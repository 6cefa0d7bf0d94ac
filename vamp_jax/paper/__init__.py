"""The paper's tables and figures: its numbers, our records of runs, and what is made of both."""
