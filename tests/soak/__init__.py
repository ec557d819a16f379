"""A long run under constant load and random faults, with an accounting: see ``scripts/soak``."""
