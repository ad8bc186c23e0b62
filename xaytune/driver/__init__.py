"""The driver: what happens in a sweep on which message of its trials. No Ray, no torch."""
