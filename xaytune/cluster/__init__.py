"""A Ray cluster seen from outside: sweeps are launched on it, followed and stopped through Ray's Jobs API."""
