"""What the daemon knows of itself and of what it keeps, for people: status, inventory, statistics, explanations."""
