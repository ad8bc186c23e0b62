"""What to do next: search methods, their samplers and schedulers, the curve model, and replay."""
