"""What is wrong with a daemon or its keys, in words."""
