"""Results in HDF5, with all that it takes to have them again.

Axes have names, as netCDF keeps them: so that xarray, which knows HDF5 files of this kind, opens it.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import brainunit as u
import jax
import numpy as np

from hebbax.experiments.parameters import Array, Data
from hebbax.runs import store

KIND, FORMAT = "result", 1
PACKAGES = ("hebbax", "jax", "jaxlib", "numpy", "scipy", "brainunit", "h5py")
ONLY_AN_AXIS = "This is a netCDF dimension but not a netCDF variable."  # which netCDF says and looks for
LARGE = 1 << 12  # numbers, from which on they are compressed


def write(path: Path, data: Data, about: Mapping[str, Any]) -> None:
    """Write a run's results to an HDF5 file, and what is said about it as attributes; whole, or not at all."""
    store.write(path, KIND, FORMAT, filling(data, about))


def filling(data: Data, about: Mapping[str, Any]) -> Callable[[Any], None]:
    """What writes them into an open `h5py.File`."""

    def fill(file: Any) -> None:
        for name, x in {**data.about, **about}.items():
            file.attrs[name] = x if isinstance(x, (str, int, float)) else json.dumps(x)
        _fill(file, data.arrays)
        group = file.create_group("parameters")
        values = {field: getattr(data.parameters, field.name) for field in dataclasses.fields(data.parameters)}
        constants = {
            field.name: _constant(field.name, value, **field.metadata)
            for field, value in values.items()
            if field.name not in data.arrays  # of a sweep over it
            and not isinstance(value, str)
        }
        group.attrs.update({field.name: str(value) for field, value in values.items() if isinstance(value, str)})
        _fill(group, {name: x for name, (x, _) in constants.items()})
        for name, (_, source) in constants.items():
            group[name].attrs["source"] = source

    return fill


def provenance() -> dict[str, Any]:
    """What ran: versions, the command, the machine, and the commit of the folder that it ran in."""
    devices = sorted({device.device_kind for device in jax.devices()})
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command_line": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "jax_backend": jax.default_backend(),
        "device_kind": ", ".join(devices),
        "processes": jax.process_count(),
    }


def _fill(group: Any, arrays: Mapping[str, Array]) -> None:
    values = {name: np.asarray(x.value) for name, x in arrays.items()}
    axes = {axis: n for name, x in arrays.items() for axis, n in zip(x.dims, values[name].shape, strict=True)}
    if "neuron" in axes:
        values["neuron"] = np.arange(axes["neuron"])
        arrays = {"neuron": Array(values["neuron"], meaning="number of the neuron", dims=("neuron",)), **arrays}
    for name, x in arrays.items():
        options: Any = dict(compression="gzip", compression_opts=1, shuffle=True) if values[name].size > LARGE else {}
        made = group.create_dataset(name, data=values[name], **options)
        made.attrs["units"] = x.unit or "1"
        if x.meaning:
            made.attrs["long_name"] = x.meaning
    for axis, n in axes.items():
        if axis in group:
            group[axis].make_scale(axis)
        else:
            group.create_dataset(axis, (n,), ">f4").make_scale(f"{ONLY_AN_AXIS}{n:10}")
    for name, x in arrays.items():
        if x.dims != (name,):
            for k, axis in enumerate(x.dims):
                group[name].dims[k].attach_scale(group[axis])


def _constant(name: str, value: Any, meaning: str = "", source: str = "") -> tuple[Array, str]:
    """A parameter as an array, and its source."""
    parts = value if isinstance(value, tuple) else (value,)
    unit = str(parts[0].unit) if isinstance(parts[0], u.Quantity) else ""
    numbers = [x.to_decimal(parts[0].unit) if isinstance(x, u.Quantity) else x for x in parts]
    if not isinstance(value, tuple):
        return Array(numbers[0], unit, meaning), source
    return Array(numbers, unit, meaning, (f"{name}_item",)), source


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.processor())


def _commit() -> str:
    """That of the folder from which the command was called, if it is under version control by Git."""
    try:
        name, changes = (
            subprocess.run(["git", *arguments], check=True, capture_output=True, text=True, timeout=10).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return "none"
    return name + (" with changes" if changes else "")
