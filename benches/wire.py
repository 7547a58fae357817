"""The lookup bench under its short name, `python -m benches.wire`; the bench itself is `benches.lookup`."""

if __name__ == "__main__":
    from benches.harness.processes import run_bench
    from benches.lookup.__main__ import main

    run_bench(main)
