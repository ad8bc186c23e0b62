"""A trial's run, from its first event to its end; runs wherever its recipe does, be it in `try`."""
