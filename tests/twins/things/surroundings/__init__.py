"""What is in force around a compile."""
