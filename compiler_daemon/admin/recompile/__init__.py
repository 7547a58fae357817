"""Kept graphs handed to a daemon again, and what came of it."""
