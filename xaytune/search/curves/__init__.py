"""The search that reads learning curves: what to try next, and which trial to stop, by one Gaussian process."""
