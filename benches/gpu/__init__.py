"""What the daemon does for a GPU, checked on the machine at hand: `benches/gpu_check.sh`."""
