"""The lookup bench under its short name, `python -m benches.wire`; the bench itself is `benches.lookup`."""

if __name__ == "__main__":
    import sys

    from benches.lookup.__main__ import main

    sys.exit(main())
