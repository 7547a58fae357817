"""From a request to an artifact: who is welcome, what a call may do, one compile a key, what is found and taken in."""
