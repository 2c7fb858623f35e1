"""How many threads to use where nobody has said: what the environment asks for, or the CPUs this process may use."""

import math
import operator
import os
from pathlib import Path

MAX_THREADS = 1024


def default_num_threads() -> int:
    """`HEBBAX_NUM_THREADS`, else `OMP_NUM_THREADS`, else the CPUs that the process's affinity and cgroup leave it."""
    asked = os.environ.get("HEBBAX_NUM_THREADS", "").strip()
    if asked:
        return check_num_threads("HEBBAX_NUM_THREADS", int(asked) if asked.isdecimal() else asked)
    outermost = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number per level of nesting
    if outermost.isdecimal() and 1 <= int(outermost) <= MAX_THREADS:
        return int(outermost)
    return max(1, math.ceil(min(len(usable_cpus()), MAX_THREADS, _cgroup_quota())))


def usable_cpus() -> set[int]:
    """The CPUs that the process's affinity leaves it."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def check_num_threads(name: str, n: object) -> int:
    """`n` as an int; raise a ValueError unless it is one from 1 to `MAX_THREADS`."""
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 1 <= operator.index(n) <= MAX_THREADS:
        raise ValueError(f"{name}: got {n!r}, expected an integer from 1 to {MAX_THREADS}")
    return operator.index(n)


def _cgroup_quota(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """CPUs that the process's control groups, versions 1 and 2, let it use; infinity where there is no such limit."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return math.inf
    quota = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        # A limit of any enclosing group holds; inside a container only the innermost may be visible, at the root.
        group = base / path.lstrip("/")
        for folder in {base, group, *(p for p in group.parents if base in p.parents)}:
            quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:
            allowed = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return math.inf if allowed in ("max", "-1") else int(allowed) / int(period)
    except (OSError, ValueError):
        return math.inf


def numa_domains(nodes: Path = Path("/sys/devices/system/node")) -> dict[int, set[int]]:
    """The CPUs of each domain of memory, by the domain's number; empty where the system does not say."""
    found = {}
    for path in nodes.glob("node[0-9]*/cpulist"):
        try:
            found[int(path.parent.name.removeprefix("node"))] = _listed(path.read_text().strip())
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items()))


def _listed(ranges: str) -> set[int]:
    """The numbers of a list such as '0-3,8'."""
    ends = [[int(end) for end in part.split("-")] for part in ranges.split(",") if part]
    return {number for first, *last in ends for number in range(first, (last or [first])[0] + 1)}
