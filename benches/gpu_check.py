"""The GPU check as `benches/gpu_check.sh` starts it, `python -m benches.gpu_check`; it is in `benches.gpu`."""

if __name__ == "__main__":
    import sys

    from benches.gpu.__main__ import main

    sys.exit(main())
