"""Published plasticity experiments, one module each, built on the operators.

A module has `Parameters` (with units and the source of each), `simulate`, which returns a frozen `Result`, and
`summary`, `arrays` and `figure` of that result. Its command is in `hebbax.cli`; only that prints or writes.
"""
