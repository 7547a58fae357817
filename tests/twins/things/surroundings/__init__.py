"""The state that is in force around a compile."""
