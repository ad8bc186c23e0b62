"""Trying one configuration in this process, without Ray: the driver of all sweeps, and an executor of its own."""
