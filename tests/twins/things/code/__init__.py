"""The user's code that runs while torch compiles."""
