"""The GPU check as `benches/gpu_check.sh` starts it, `python -m benches.gpu_check`; it is in `benches.gpu`."""

if __name__ == "__main__":
    from benches.gpu.__main__ import main
    from benches.harness.processes import run_bench

    run_bench(main)
