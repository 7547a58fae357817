"""What both sides say of an endpoint in the same words: why a connection over TLS does not come about."""
