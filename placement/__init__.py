"""Pure planning: from model, workload, offerings and objective to a `Plan`, with a bound."""
