"""Trials, and the processes that they run in. No Ray."""
