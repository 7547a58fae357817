"""A daemon's life, as its operator sees it: started in the background, ended, read, cleaned up, handed to systemd."""
