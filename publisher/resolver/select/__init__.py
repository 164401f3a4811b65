"""From the name of an image to the form in which it runs on this host."""
