"""Values that the client's tests share."""

from __future__ import annotations

ENVIRONMENT = {"python": "cp311", "torch": "2.13.0", "cpu_flags": "avx2"}
KEY = "akey" + "a" * 49
