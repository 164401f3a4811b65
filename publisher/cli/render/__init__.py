"""What the commands print: plans, reports, checks and status, as text and as JSON."""
