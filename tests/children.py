"""Processes that a test starts, several at a time, and ends."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 240  # seconds after which a child that hangs is ended


VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"


def environment(devices=1, **changes):
    """Of children: with virtual devices of their own, and without proxies between processes."""
    kept = {name: x for name, x in os.environ.items() if not name.lower().endswith("_proxy")}
    flags = [flag for flag in kept.get("XLA_FLAGS", "").split() if not flag.startswith(VIRTUAL_DEVICES)]
    kept["XLA_FLAGS"] = " ".join([*flags, *([f"{VIRTUAL_DEVICES}={devices}"] if devices > 1 else [])])
    path = os.pathsep.join([str(HERE), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": path} | changes


def run_together(commands, environments):
    """Run commands at the same time; return their statuses and what they printed."""
    children = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in zip(commands, environments, strict=True)
    ]
    end = time.monotonic() + LIMIT
    try:
        outputs = [child.communicate(timeout=max(1, end - time.monotonic()))[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    return [child.returncode for child in children], outputs


def run_tests(path, marks, devices):
    """Run a file's tests, those that `marks` chooses, in a process that has several devices; none may skip."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", marks, str(path)]
    (status,), (output,) = run_together([command], [environment(devices=devices)])
    assert status == 0, output
    assert " passed" in output and "skipped" not in output.splitlines()[-1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
