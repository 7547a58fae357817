"""A warm start that does not trace: what dynamo made of a function, recorded, and put back on a live frame."""
