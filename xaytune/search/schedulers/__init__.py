"""Schedulers: at its decision points a trial continues, stops, is paused, or takes over another's checkpoint."""
