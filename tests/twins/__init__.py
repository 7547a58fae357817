"""Pairs of programs that differ in exactly one thing; a daemon that serves both must never confuse them."""
