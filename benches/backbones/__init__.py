"""What a FLOP is worth at equal budgets, spent on depth, width or kind of layer: `python -m benches.backbones`."""
