"""What a training feels when a resolution appears for the first time: `python -m benches.stall`."""
