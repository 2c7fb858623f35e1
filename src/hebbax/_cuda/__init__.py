"""The CUDA backend: the kernels of cuda/*.cu, compiled by CuPy when they are first needed, on memory that others own.

A `Plan` holds everything about a call that shapes and dtypes decide: which kernels run, on which blocks, and what they
are told. So nothing depends on how many neurons spike, the same launches can be captured in a CUDA graph and replayed,
and a call only fills in addresses, which `native` does without Python. CuPy is imported at first use.
"""
