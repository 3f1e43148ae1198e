"""The differential test: one script of calls, run against PyPI's transferqueue and against this system.

`play` runs the script in one environment and writes the answers down, in a form that both sides share
(`answers`); `compare` starts it on both sides and compares.  What is called: `names` (every public name of
the contract), `points_*` (cases, each labelled with the point of the semantics that it is about) and
`sequences` (random calls made from a seed).
"""
