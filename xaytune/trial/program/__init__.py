"""Trials that are programs of their own; runs in the trial's process, and `joining` in the program."""
