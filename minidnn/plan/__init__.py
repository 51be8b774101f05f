"""Compiled inference: a model becomes a list of steps, then a table of numbers that one loop runs.

`program` holds the list, `lowering` makes it from the traced graph, `folding` joins steps,
`table` turns it into numbers, `memory` finds room for the values, `compiler` is the way in.
"""
