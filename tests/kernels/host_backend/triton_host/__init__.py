"""A Triton backend for the host. It is a tool of the tests, for machines without a GPU, and no user meets it.

With this backend on the path Triton has a target `cpu`, so that torch takes `@triton.jit` kernels into graphs of CPU
tensors, as it does with a GPU. Triton finds it as it finds every external backend: by an entry point, in the folder
beside this one.

compiler.py   Triton's frontend and its passes for TTIR; the binary (`.hostbin`) is that TTIR, without places in sources
program.py    does with numpy what a binary says, on the memory that the pointers name driver.py     loads a binary, and
runs it once for each point of the grid

Only the binary runs, and nothing looks at the kernel's Python source. Therefore a missing, damaged or wrong binary is
an error or gives other numbers. The backend understands straight-line kernels only (no loops, no reductions, no dot)
and refuses others. HOST_KERNELS_LOG names a file to which every process adds a line for each kernel that it compiles or
loads.
"""
