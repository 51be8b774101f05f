"""Inference as a table: every step of a network is a row of numbers, and one loop runs them all.

`fields` names the columns, `steps` holds the loop of each kind of step, `run` the two orders in
which a table is run. All arrays live in one piece of memory; a row says where. What builds such
tables is `minidnn.plan`.
"""
