"""One graph on its way: captured, asked for, put where torch looks, or left to run without a compile."""
