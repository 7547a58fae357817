"""Sweeps: the cells of a matrix, each trainer run once in compile-only mode so that the sweep itself compiles nothing.

`plan` says which cells there are, `cell` runs one, `runner` runs them all, `sharing` lets several nodes run them,
`progress_file` remembers those that are done, `estimate` says how long it will take, `recompile_limit` who will pass
dynamo's limit, `view` shows all of it.
"""
