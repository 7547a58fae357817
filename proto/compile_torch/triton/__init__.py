"""What trainer and worker must say about Triton in the same way. Imported only where triton is there; torch-free.

`versions` has the table of what differs between versions of Triton.
"""
