"""What trainer and worker must say about torch in the same way: one place, so that they cannot disagree.

The only package that both ends share and that knows torch. Torch is imported inside functions, never when a module
is imported.
"""
