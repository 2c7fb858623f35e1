"""Published plasticity experiments, one module each, built on the operators.

A module has `Parameters` (with units, and the source of each) and `simulate`, which returns a frozen `Result`; a module
of the same name and `_report` has its `numbers`, `summary`, `data` and `arrays`, and one with `_figure`, which takes
matplotlib, `figure`; those of networks share theirs. The commands are in `hebbax.runs`; only these print or write.
"""
