"""Kernels of the kinds that trainers and their libraries call directly. Each is complete, and written for this corpus.

`corpus()` has each with the types and constants that it is compiled for; nothing here needs a device.
"""

from benches.kernels.corpus.table import Specimen, corpus

__all__ = ["Specimen", "corpus"]
