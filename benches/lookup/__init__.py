"""One lookup with its transfer, beside redis and bare gRPC: `python -m benches.wire`."""
