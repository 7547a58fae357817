"""The console script `compiler-daemon`, and `python -m compiler_daemon`."""

from compiler_daemon.cli import run


def main() -> None:
    """Run the command line; end with exit code 0 (done), 1 (failed) or 2 (wrong use)."""
    run()


if __name__ == "__main__":
    main()
