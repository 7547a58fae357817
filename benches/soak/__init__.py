"""Many clients, a store at its quota, and a daemon that is killed every minute: `python -m benches.soak`."""
