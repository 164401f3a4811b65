"""From an image's name to the form that serves the job here."""
