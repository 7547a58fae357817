"""One model trained on several resolutions at once: `python -m benches.multires`."""
