"""The differential test: one script of calls, run against PyPI's transferqueue and against this system.

`play` runs the script in one environment and writes the answers to a file, in a form common to both sides
(`answers`); `compare` starts it on both sides and compares.  The calls are in: `names` (every public name of
the contract), `points_*` (cases, each labelled with the point of the contract that it is about) and
`sequences` (random calls made from a seed).
"""
