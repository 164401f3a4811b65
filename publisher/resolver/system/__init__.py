"""Access to the operating system with deadlines: forked calls, locks, child processes, log output, remembered failures."""
