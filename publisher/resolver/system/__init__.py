"""The operating system, with deadlines: forked work, locks, programs that end with us."""
