"""What trainer and worker must say about torch in the same way: one place, so that they cannot disagree.

The only rooms of `compile_wire` that know torch. It is imported inside functions, never when a module is imported.
"""
