"""The machine that CuPy's stand-in plays: its devices, its errors, and a log of what it was told to do."""

import contextlib
import threading
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Load:
    """A module was compiled and loaded."""

    names: tuple[str, ...]
    device: int
    options: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Launch:
    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    argument: np.ndarray  # the struct, as it was
    device: int
    stream: int


@dataclass(frozen=True)
class Memset:
    ptr: int
    value: int
    size: int
    device: int
    stream: int


@dataclass(frozen=True, eq=False)
class GraphMemory:
    """What a captured graph has for itself, from where it is asked for to where it is freed (then `size` is 0)."""

    ptr: int
    size: int
    device: int
    stream: int
    memory: np.ndarray | None


XLA_STREAM = 0x5EED

_MEANINGS = {
    1: "cudaErrorInvalidValue: invalid argument",
    400: "cudaErrorInvalidResourceHandle: invalid resource handle",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
    500: "cudaErrorSymbolNotFound: named symbol not found",
    900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing",
    905: "cudaErrorStreamCaptureIsolation: dependency created on uncaptured work in another stream",
}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(_MEANINGS[status])


class CUDADriverError(RuntimeError):
    """Of the functions that load modules and launch kernels (their messages are upper case in CUDA)."""

    def __init__(self, status):
        self.status = status
        super().__init__(_MEANINGS[status])


@dataclass
class Machine:
    """Change these as a test needs them."""

    devices: int = 1
    multiprocessors: int = 1
    capturing: int | None = None  # the stream whose work is being captured in a graph
    xla_device: int = 0  # where XLA says that it calls
    log: list = field(default_factory=list)
    loaded: dict = field(default_factory=dict)  # modules, by device and what they were made of
    _threads: threading.local = field(default_factory=threading.local)  # each has a device and streams of its own

    _contexts: dict = field(default_factory=dict)

    def reset(self):
        self.__init__()

    def logged(self, kind):
        """The records of a kind, such as `Launch`."""
        return [record for record in self.log if isinstance(record, kind)]

    @property
    def device(self):
        """The current one, of this thread."""
        return getattr(self._threads, "device", 0)

    @device.setter
    def device(self, number):
        if not 0 <= number < self.devices:
            raise CUDARuntimeError(101)
        self._threads.device = number

    @property
    def streams(self):
        """The current stream of each device, of this thread; none: the default stream."""
        return self._threads.__dict__.setdefault("streams", {})

    @contextlib.contextmanager
    def on(self, device):
        before, self.device = self.device, device
        try:
            yield
        finally:
            self.device = before

    @property
    def contexts(self):
        """Those that this thread has pushed; below them is that of the device that it has set, if it has.

        By the thread's number: one that Python has not made has no memory of its own from one call to the next.
        """
        return self._contexts.setdefault(threading.get_ident(), [])

    @property
    def context(self):
        """The current one, of this thread; 0: none."""
        if self.contexts:
            return self.contexts[-1]
        return context_of(self.device) if hasattr(self._threads, "device") else 0

    def check_load(self):
        if self.capturing is not None:
            raise CUDADriverError(900)

    def check_work_on(self, stream, error):
        if self.capturing is not None and stream != self.capturing:
            raise error(905)


def context_of(device):
    """The address of the context of a device."""
    return 0xC0 + device


machine = Machine()
