"""The worker processes: a bounded number of warm ones, started, given jobs, measured and ended."""
