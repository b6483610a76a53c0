"""A report as one page of HTML that needs nothing else: to be sent, kept and printed."""
