"""What torch's key, and the daemon's on top of it, are made of: read in the trainer, applied in the worker."""
