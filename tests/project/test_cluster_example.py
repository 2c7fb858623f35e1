"""examples/cluster: the job is a valid script, asks for what it uses, and its command is one that there is."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import jax
import pytest
from typer.testing import CliRunner

from hebbax import cli
from hebbax.runs import simulate

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="examples are not part of an installed package")


@pytest.fixture
def job():
    return (FOLDER / "hpc.sbatch").read_text()


@pytest.fixture
def requested(job):
    return dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", job, re.MULTILINE))


@pytest.fixture
def launched(tmp_path, requested):
    """What the job hands to srun: the words, and the environment."""
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\necho ---\nenv\n')
    srun.chmod(0o755)
    slurm = {"SLURM_CPUS_PER_TASK": requested["cpus-per-task"], "SLURM_JOB_ID": "7", "https_proxy": "proxy"}
    env = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    child = subprocess.run(["bash", FOLDER / "hpc.sbatch"], env=env, capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    words, _, environment = child.stdout.partition("---\n")
    return words.splitlines(), environment.splitlines()


def test_a_process_has_the_threads_it_asks_for(launched, requested):
    words, environment = launched
    cores = requested["cpus-per-task"]
    assert f"--cpus-per-task={cores}" in words
    assert {f"HEBBAX_NUM_THREADS={cores}", f"OMP_NUM_THREADS={cores}"} <= set(environment)
    assert not any(variable.startswith("https_proxy=") for variable in environment)
    first = re.search(r"^\| .*NPS4.*$", (FOLDER / "README.md").read_text(), re.MULTILINE)[0]
    numbers = [int(x) for x in re.findall(r"\| +(\d+) +(?=\|)", first)]
    tasks = int(requested["ntasks-per-node"])
    assert numbers == [tasks, tasks, int(cores), int(cores), tasks * int(cores)]


def test_tables_add_up():
    text = (FOLDER / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) × (\d+) cores.*?\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for sockets, cores, domains, tasks, cpus, threads, total in (map(int, row) for row in rows):
        assert tasks == domains and cpus == threads and tasks * threads == total == sockets * cores


def test_the_command_is_one_that_there_is(launched, tmp_path, monkeypatch):
    words, _ = launched
    command = words[words.index("hebbax") + 1 :]
    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax.distributed, "initialize", lambda: seen.update(joined=True))
    monkeypatch.setattr(simulate, "run", lambda *_, **options: seen.update(options))
    result = CliRunner().invoke(cli.app, command)
    assert result.exit_code == 0, shlex.join(command) + result.output
    assert seen["joined"] and seen["scale"] == 16
