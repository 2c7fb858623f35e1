"""Errors that hebbax raises beyond Python's own and brainunit's."""


class ShapeError(ValueError, AssertionError):
    """An argument's rank or size does not fit.

    Also an `AssertionError`, because code written for `brainevent` catches that.
    """
