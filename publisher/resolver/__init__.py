"""The execution point's side: which form of an image to use, and where. Python 3.9, standard library only, ships alone."""
