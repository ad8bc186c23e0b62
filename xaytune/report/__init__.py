"""Pictures of what is recorded: the live view of a running sweep, and its summary."""
