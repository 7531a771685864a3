"""Routing rules: which studies which model reads, and who gets what of its results.

`docs/rules.md` says how they are written.
"""
