"""Errors that hebbax raises beyond Python's own and brainunit's."""


class ShapeError(ValueError, AssertionError):
    """An argument's rank or size does not fit.

    Also an `AssertionError`, because code written for `brainevent` catches that.
    """


class RecordOverflow(OverflowError):
    """More was recorded than there was room for.

    Attributes
    ----------
    lost : int
        How many were not kept: spikes, samples, or the steps whose spikes were not counted.
    capacity : int
        For how many there was room.
    needed : int
        For how many room would have been enough.
    """

    def __init__(self, message: str, lost: int, capacity: int):
        super().__init__(message, lost, capacity)
        self.lost, self.capacity, self.needed = lost, capacity, capacity + lost

    def __str__(self) -> str:
        return str(self.args[0])
