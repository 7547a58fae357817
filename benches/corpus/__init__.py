"""Models that others wrote, compiled by a real daemon: what it takes of them, and whether numbers stay the same."""
