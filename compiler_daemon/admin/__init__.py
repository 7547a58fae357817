"""What runs in an operator's terminal: calls to a daemon, and what people read of its answers.

The daemon itself imports none of it.
"""
