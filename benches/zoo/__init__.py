"""How much of what dynamo emits the daemon can take: `python -m benches.zoo`."""
