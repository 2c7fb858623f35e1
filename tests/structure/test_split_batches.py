"""Batches that `jit` splits over devices: how they lie here, values in a process that has four devices."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from children import run_tests
from hebbax._core.members import _mesh_axes


def test_on_four_devices(pytestconfig):
    """The tests in split_batches.py."""
    run_tests(Path(__file__).parent / "split_batches.py", pytestconfig.getoption("markexpr"), devices=4)


@pytest.mark.parametrize("mesh", [(2,), (6,), (3, 2), (2, 3), (4, 3), (3, 4), (2, 3, 4), (3, 2, 5), (16, 2)], ids=str)
def test_a_mesh_is_found_again(mesh):
    """Two dimensions, split over any axes of a mesh of the user, each in any order."""
    places = np.indices(mesh).reshape(len(mesh), -1)
    for axes in itertools.permutations(range(len(mesh))):
        for first, second in itertools.combinations(range(len(axes) + 1), 2):
            split = axes[:first], axes[first:second]
            part = np.stack([numbered(places, mesh, own) for own in split], axis=1)
            found = _mesh_axes(part)
            assert np.prod([size for size, _ in found]) == np.prod(mesh)
            index = np.indices([size for size, _ in found]).reshape(len(found), -1)
            np.testing.assert_array_equal(index.T @ np.array([step for _, step in found]), part)


def numbered(places, mesh, axes):
    out = np.zeros(places.shape[1], int)
    for axis in axes:
        out = out * mesh[axis] + places[axis]
    return out


def test_what_no_mesh_does_is_not_taken_for_one():
    assert _mesh_axes(np.array([[0], [1], [1], [0]])) is None
    assert _mesh_axes(np.array([[0], [1], [3], [2], [4], [5]])) is None
