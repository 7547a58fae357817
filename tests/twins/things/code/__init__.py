"""Code of the user's that runs while torch compiles."""
