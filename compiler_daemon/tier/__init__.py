"""What daemons share: packed objects that a trusted signer vouches for, in a place that nobody has to trust."""
