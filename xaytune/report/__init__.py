"""Pictures of what is recorded: the live view, the summary, reports, stories, comparisons, dashboard, plan."""
