"""Sweeps in virtual time: the real driver and search method, on learning curves that are known already."""
