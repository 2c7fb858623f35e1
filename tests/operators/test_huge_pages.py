"""Large weights that are visited in scattered order lie on huge pages, where Linux has some to give."""

import mmap
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hebbax

SIZE, COLLAPSE = 16 << 20, 25  # Linux's number, which Python's mmap does not know


def huge_kilobytes(address):
    """Of the mapping that begins here."""
    for block in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M):
        if block and int(block.split("-")[0], 16) <= address < int(re.split("[- ]", block)[1], 16):
            return int(re.search(r"AnonHugePages:\s+(\d+) kB", block)[1])
    raise LookupError(f"no mapping at {address:#x}")


def small_pages():
    """Memory that is in use, on ordinary pages."""
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(memory, np.float32)
    array[:] = 0.5
    return memory, array


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
@pytest.mark.parametrize("event", ["post", "pre"])
def test_scattered_updates_ask_for_them(event):
    weight = small_pages()[1]
    if huge_kilobytes(weight.ctypes.data):
        pytest.skip("the system gives them to all")
    n = weight.size
    ids, trace, spike = np.arange(n, dtype=np.int32), np.full(1, 0.25, np.float32), np.array([True])
    row = np.array([0, n], np.int32)
    zeros = np.zeros(n, np.int32)
    if event == "post":
        hebbax.inplace.update_csr_on_binary_post(weight, zeros, row, ids, trace, spike, shape=(1, 1))
    else:
        hebbax.inplace.update_csr_on_binary_pre(weight, zeros, row, spike, trace, shape=(1, 1))
    assert (weight == 0.75).all()
    given = huge_kilobytes(weight.ctypes.data) > 0
    if event == "post" and not given:
        try:
            small_pages()[0].madvise(COLLAPSE)
        except OSError as error:
            pytest.skip(f"the system gives none: {error}")
    assert given == (event == "post")  # contiguous updates gain nothing


def traces_of_an_update():
    """Say who gets huge pages: all, those who ask, of which a kernel was one or has forgotten, or none."""
    memory, trace = small_pages()
    unasked = huge_kilobytes(trace.ctypes.data)
    column = np.array([0, 1], np.int32)
    weight, ids = np.zeros(1, np.float32), np.zeros(1, np.int32)
    hebbax.inplace.update_csr_on_binary_post(weight, ids, column, ids, trace, np.array([True]), shape=(trace.size, 1))
    given = huge_kilobytes(trace.ctypes.data)
    memory.madvise(mmap.MADV_HUGEPAGE)
    try:
        memory.madvise(COLLAPSE)
    except OSError:
        print("none")
    else:
        print("all" if unasked else "asked" if given else "forgotten")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_traces_lie_there_too():
    """In a process of its own: where memory begins for which was asked once, nobody asks again."""
    command = [sys.executable, "-c", "import test_huge_pages; test_huge_pages.traces_of_an_update()"]
    child = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert child.returncode == 0, child.stderr
    if child.stdout.strip() in ("none", "all"):
        pytest.skip(f"the system gives them to {child.stdout.strip()}")
    assert child.stdout.strip() == "asked"
