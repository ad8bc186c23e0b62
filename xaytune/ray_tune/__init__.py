"""Sweeps on Ray Tune: the one folder, with `cluster/`, that imports Ray."""
