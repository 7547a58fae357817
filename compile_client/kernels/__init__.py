"""One Triton kernel on its way: lowered to text, asked for, put into Triton's cache; candidates and their winners."""
