"""Adapters that fire xaytune's events from the trainers of other libraries. Each needs its own library alone."""
