"""The console script `compiler-daemon`, and `python -m compiler_daemon`."""

import os
import sys


def main() -> None:
    """Run the command line; end with exit code 0 (done), 1 (failed), 2 (wrong use) or 130 (interrupted)."""
    if sys.platform != "linux":
        sys.stderr.write("compiler-daemon: it runs on Linux only; elsewhere torch compiles as always, without it\n")
        raise SystemExit(1)
    # What gRPC's core writes by itself names its own source lines; whatever matters in it is said by us. In a daemon's
    # log it stays: there it says who failed to shake hands. `putenv` tells this process's libraries alone: trainers and
    # daemons that are started from here are given `os.environ`, which says what the user says.
    if sys.argv[1:2] != ["serve"] and "GRPC_VERBOSITY" not in os.environ:
        os.putenv("GRPC_VERBOSITY", "NONE")
    try:
        # Here, and not above: much is imported, and whoever interrupts that wants no traceback either.
        from compiler_daemon.cli import run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("compiler-daemon: interrupted\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
