"""Published plasticity experiments, one module each, built on the operators.

A module has `Parameters` (with units, and the source of each), `simulate`, which returns a frozen `Result`, and of that
`summary` and `arrays`; a module of the same name and `_figure`, which takes matplotlib, has `figure`. The commands
are in `hebbax.runs`; only these print or write.
"""
