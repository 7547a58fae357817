"""What an operator does with a tier itself, whether a daemon runs or not: looks, verifies, cleans, removes.

`contents` says what is in it, `listing` what each object says of itself, `verify` what a reader would say of it,
`cleaning` what goes, `view` shows all of it.
"""
