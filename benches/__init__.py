"""The lab's benches: `python -m benches.multires`, `.gradients`, `.backbones`. See docs/lab.md."""
