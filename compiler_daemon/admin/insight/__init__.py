"""What a daemon tells of graphs and figures: the calls, and the answers as people read them."""
