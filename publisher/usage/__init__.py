"""Which published images jobs use, from traces of execution points and the history of access points, and what follows from it."""
