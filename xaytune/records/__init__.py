"""What happened: the journal of a sweep, the history of its trials, and the views rebuilt from them. No Ray."""
