"""A Triton backend for the host: a tool of the tests, for machines without a GPU. No user meets it.

With it on the path, Triton has a target `cpu`, so that torch takes `@triton.jit` kernels into graphs of CPU tensors, as
it does with a GPU. Triton finds it as it finds every backend from elsewhere: by an entry point, in the folder beside.

compiler.py   Triton's frontend and its passes for TTIR; the binary (`.hostbin`) is that TTIR, without places in sources
program.py    what a binary says, done with numpy on the memory that the pointers name
driver.py     loads a binary, and runs it once for each point of the grid

What is run is the binary alone: nobody looks at the kernel's Python source, so that a missing, damaged or wrong binary
is an error or gives other numbers. Only straight-line kernels are understood (no loops, no reductions, no dot); others
are refused. HOST_KERNELS_LOG names a file that gets a line for each kernel that was compiled or loaded, by any process.
"""
