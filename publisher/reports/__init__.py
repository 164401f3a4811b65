"""What a run tells people and programs: progress while it lasts, a report at its end."""
