"""From a process's start to its last backward, every way there is to start it: `python -m benches.startup`."""
