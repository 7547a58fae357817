"""The user's code that runs while torch compiles a graph: found and digested for the key, or a reason not to share."""
