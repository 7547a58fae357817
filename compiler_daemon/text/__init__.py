"""Text for people and for the log: numbers, bytes, durations, and one line a record."""
