"""Sweeps: the cells of a matrix, each trainer run once in compile-only mode so that the sweep itself compiles nothing.

`plan` says which cells there are, `cell` runs one, `warmup` runs them all, `record` remembers those that are done,
`estimate` says how long it will take, `limits` who will pass dynamo's limit, `view` shows all of it.
"""
