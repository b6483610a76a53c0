"""What makes batches, details of runs and budgets durable."""
