"""A Triton kernel as data: its form, its options, its environment, and what it is for people."""
