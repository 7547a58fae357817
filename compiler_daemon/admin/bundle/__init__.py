"""Files in which what a daemon keeps travels: bundles of artifacts, and files of graphs.

    magic (8 bytes)   items, one after the other   index (msgpack)   signature   length of the index   magic

The index comes last, so that a file is written in one pass and bounded memory; it names every item by its digest and
size, so that a signature over it covers everything. A bundle of artifacts is signed: artifacts are code. A file of
graphs is not: graphs are data, checked by whoever reads them, and the digests only show damage.

Guarantees: a file appears under its name whole or not at all. Reading allocates nothing that the file's own length does
not justify, and hands out no item that does not match its digest.
"""

from compiler_daemon.admin.bundle.graphs import GraphRequest, graphs_of, read_graphs
from compiler_daemon.admin.bundle.index import Index, Kind, Packed, Request
from compiler_daemon.admin.bundle.reader import Bundle
from compiler_daemon.admin.bundle.writer import BundleWriter

__all__ = ["Bundle", "BundleWriter", "GraphRequest", "Index", "Kind", "Packed", "Request", "graphs_of", "read_graphs"]
