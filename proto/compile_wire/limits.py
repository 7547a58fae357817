"""Bounds of everything that crosses the wire, each with its reason. Both ends check them before they use a value."""

PROTOCOL_VERSION = 1
"""Raised when an old client and a new daemon can no longer understand each other."""

MAX_INLINE_BYTES = 3 * 2**20
"""Payloads up to this travel inside a message; gRPC's default limit is 4 MiB and the rest of the message needs room."""

MAX_MESSAGE_BYTES = 4 * 2**20
"""gRPC's own default, kept: no single message makes either side allocate more."""

CHUNK_BYTES = 1 * 2**20
"""A streamed blob's piece: large enough that per-message cost vanishes, small enough to interleave."""

MAX_GRAPH_BYTES = 32 * 2**20
"""A 4-layer DiT is about 100 KB; a graph of a hundred thousand nodes stays below this."""

MAX_BLOB_BYTES = 512 * 2**20
"""Larger than any shared object or cubin; a constant folded into an entry may be large."""

MAX_ARTIFACT_BYTES = 1024 * 2**20
"""All blobs of one artifact together."""

MAX_BLOBS = 4096
"""Blobs of one artifact; a graph of a thousand kernels has about as many."""

MAX_MANIFEST_BYTES = 2 * 2**20
"""About 200 bytes a blob, and a guard expression."""

MAX_ENTRIES_PER_LOOKUP = 16
"""Entries of one key that differ in their guards; a lookup answers with the newest of them."""

MAX_HAVE = 64
"""Manifests that a client names as tried already."""

MAX_ENVIRONMENT_FIELDS = 64
MAX_ENVIRONMENT_TEXT = 8192
"""Per field; the longest is the list of the CPU's flags."""

MAX_ENVIRONMENT_BYTES = 16 * 1024
"""All names and values of an environment together; a real one has about two thousand."""

MAX_KEY_TEXT = 256
"""torch's keys are 53 characters."""

MAX_NAME_TEXT = 1024
"""Names of programs, interpreters, blobs and operators."""

MAX_NODES = 200_000
"""Nodes of one graph module; dynamo itself becomes unusable far below."""

MAX_MODULES = 4096
"""Graph modules nested in a graph: bodies of higher-order operators."""

MAX_TABLE = 1_000_000
"""Rows of the tables of sources and of expressions."""

MAX_VALUES = 4_000_000
"""Values in all arguments together."""

MAX_LISTS = 2_000_000
"""Lists and maps in one value of msgpack; a graph of 32 MiB has as many, at 17 bytes each."""

MAX_LISTS_READ = 150_000
"""The same for what a daemon reads in its own process: a graph of 2 MiB has as many."""

MAX_RANK = 64
"""torch's own limit on the dimensions of a tensor."""

MAX_KERNEL_BYTES = 8 * 2**20
"""A KernelSpec: two texts of Triton's first IR. Fused attention is about 100 KB; unrolled monsters stay below this."""

MAX_KERNEL_OPTIONS = 256
"""Options of a kernel; Triton has about thirty."""

MAX_KERNEL_ARGUMENTS = 1024
"""Parameters of a kernel; CUDA passes 4 KB of them."""

MAX_KERNEL_OPTION_TEXT = 4096
"""Text of one option, and the length of a list among them."""

MAX_TRACE_BYTES = 8 * 2**20
"""What dynamo made of one function; that of a model with a thousand guarded modules stays below a megabyte or two."""

MAX_GRAPHS_PER_REPORT = 64
"""Graphs of a run that are reported in one message; with the longest texts they take 130 KB."""

MAX_GRAPHS_PER_RUN = 4096
"""Graphs of a run that are remembered; dynamo itself gives up recompiling long before."""

MAX_REASONS = 64
"""Kinds of failure in one report; the client knows about twenty."""

MAX_REASON_TEXT = 40
"""A reason is one word: `key_mismatch`."""

MAX_MESSAGE_TEXT = 1000
"""Why a graph was compiled in the trainer, in words."""
