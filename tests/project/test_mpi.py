"""The MPI example: the weights of a network do not depend on the number of ranks."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "mpi" / "simulate.py"
# That of the environment that runs the tests first: an MPI program must be started by the MPI that it is linked to.
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # Open MPI wants to be asked twice
MORE_RANKS_THAN_CORES = {
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}

pytestmark = [
    pytest.mark.skipif(not EXAMPLE.exists(), reason="the examples are not part of an installed package"),
    pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed"),
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec"),
]


def simulate(ranks, output, *options):
    """What is printed, and the arrays that are written."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, str(EXAMPLE), "--output", str(output), *map(str, options)]
    environment = os.environ | AS_ROOT | MORE_RANKS_THAN_CORES
    child = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert child.returncode == 0, child.stderr
    return child.stdout, dict(np.load(output))


@pytest.mark.slow
@pytest.mark.parametrize("neurons, inputs, steps", [(400, 50, 100), (2, 2, 300)])  # one of three ranks has no neuron
def test_weights_are_those_of_one_rank_bit_for_bit(tmp_path, neurons, inputs, steps):
    options = "--neurons", neurons, "--inputs", inputs, "--steps", steps
    text, one = simulate(1, tmp_path / "one.npz", *options)
    assert f"ranks: 1, neurons: {neurons}, synapses: {neurons * inputs}, steps: {steps}" in text
    assert one["spikes"] > 0 and not np.array_equal(one["weight"], one["start"])
    text, three = simulate(3, tmp_path / "three.npz", *options)
    assert text.startswith("ranks: 3")
    for name, x in one.items():
        assert three[name].tobytes() == x.tobytes(), name
