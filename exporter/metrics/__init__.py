"""Every metric, its increments and totals, and how they are shown."""
