"""How a sweep runs on Ray Tune: the trial, its reporter, the cooperative scheduler, and the driver."""
