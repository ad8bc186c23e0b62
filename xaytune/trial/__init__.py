"""A trial: what runs the recipe of one configuration, and reports what it trains. No Ray."""
