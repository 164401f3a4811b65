"""Code that publisher and resolver share: manifest, references, units, files, reaper. Python 3.9, standard library only."""
