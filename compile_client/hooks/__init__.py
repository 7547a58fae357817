"""Which functions of torch's and Triton's are replaced, when, and what each does instead."""
