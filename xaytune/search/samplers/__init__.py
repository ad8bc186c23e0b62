"""Samplers: which configuration is tried next."""
