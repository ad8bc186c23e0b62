"""Contract suites: a class of one's own is right if it passes the suite that it inherits. They need pytest."""
