"""Kept graphs handed to a daemon again, and the outcome of each."""
