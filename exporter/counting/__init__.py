"""From spans to increments: what a trace adds to the totals."""
