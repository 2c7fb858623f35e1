"""What a step on a GPU must reach, and how far it is from what memory allows."""

from __future__ import annotations

from cases import Target
from gpu_cases import Scale, Touched, bytes_moved
from gpu_report import CLIP, OURS, UNBOUNDED
from measure import judge as judge_ratio

from hebbax._core.specs import Spec

TARGETS = {"update": 2.0, "propagate": 1.0}  # times brainevent
JUDGED = 0.01  # P(spike) of the smallest network, whose time is judged
LATENCY = 10.0  # microseconds, of the smallest network
ENTERED = 0.1  # times that Python is entered in a step: not at all, but for what else the process does


def peers(found: dict) -> list[str]:
    return [name for name in found["contenders"] if name.startswith("brainevent") and name != UNBOUNDED]


def judge(found: dict, spec: Spec, n: int, scale: Scale, row: tuple[int, float], copy_gb_s: float) -> None:
    """Add the fastest peer, the bandwidth limit, and the targets. `row`: synapses a neuron and P(spike)."""
    timings, touched = found["contenders"], Touched(**found["touched"])
    samples = {name: timing["samples_us"] for name, timing in timings.items()}
    fastest = min(peers(found), key=lambda name: timings[name]["median_us"], default=None)
    found |= {"peer": fastest, "ratios": {}, "limits": {}, "targets": []}
    smallest = n == scale.neurons[0] and row == (scale.synapses[0], JUDGED)
    for name in (OURS, CLIP):
        if name not in timings:
            continue
        least = bytes_moved(spec, n, found["nse"], touched, name == CLIP)
        limit = least / copy_gb_s / 1e3
        share = limit / timings[name]["median_us"]
        found["limits"][name] = {"bytes": least, "copy_gb_s": copy_gb_s, "limit_us": limit, "of_limit": share}
        if (entered := timings[name].get("python_a_step")) is not None:
            aim(found, f"{name}: Python in a step", entered, Target(name, "", "<", ENTERED))
        if smallest and name == OURS:
            aim(found, f"{name}: microseconds", timings[name]["median_us"], Target(name, "", "<", LATENCY))
        if fastest:
            judged = judge_ratio(Target(fastest, name, "≥", TARGETS[spec.kind]), samples)
            found["ratios"][name] = judged["ratio"]
            if name == OURS:  # what is promised for the default is not said
                aim(found, f"{name}: times {fastest}", judged["ratio"], Target(fastest, name, "≥", judged["limit"]))


def aim(found: dict, what: str, value: float, target: Target) -> None:
    value = float(value)
    reached = value < target.limit if target.sign == "<" else target.reached(value)
    found["targets"].append(
        {"what": what, "value": value, "sign": target.sign, "limit": target.limit, "reached": reached}
    )
