"""Commands that prepare a host or look at it as a whole: init, doctor, completion."""
