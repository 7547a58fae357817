"""What a user, a file and the daemon are told of this process: counters, progress, the run, explanations."""
