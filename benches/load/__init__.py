"""Many connections that look artifacts up as fast as they can: `python -m benches.load`."""
