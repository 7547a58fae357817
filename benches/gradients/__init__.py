"""How losses and gradients depend on the noise level: `python -m benches.gradients`."""
