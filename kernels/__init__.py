"""Numba kernels, each a ladder from naive loops to the fastest rung; they know nothing of minidnn.

One file per op. ``python -m minidnn.kernels`` lists every op, its rungs, and the one
chosen on this machine. Importing this package imports nothing else: take the file you
want, ``from minidnn.kernels import prelu``.
"""
