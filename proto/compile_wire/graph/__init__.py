"""A dynamo graph as data: its form and encoder, and its reader."""
