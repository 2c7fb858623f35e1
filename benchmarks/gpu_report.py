"""Results on a GPU: targets, one table, and Markdown. All read the dictionary that the JSON file holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cases import Target
from gpu_cases import RATES, Scale, Touched, bytes_moved
from measure import judge as judge_ratio
from report import groups, microseconds
from rich.console import Console
from rich.table import Table

from hebbax._core.specs import Spec

OURS, CLIP = "hebbax", "hebbax clip"  # with weight_in_bounds=True; default: every weight is clipped
JAX = "hebbax jax"  # pure JAX, backend='jax', with weight_in_bounds=True
UNBOUNDED = "brainevent, no bounds"
COLUMNS = (
    "case", OURS, CLIP, "brainevent", "which", "without bounds", "pure JAX", "times brainevent", "clip: times",
    "MB", "limit", "of limit", "clip: MB", "clip: limit", "clip: of limit", "targets",
)  # fmt: skip
TARGETS = {"update": 1.5, "propagate": 1.0}  # times brainevent
OF_LIMIT, LATENCY = 0.5, 20.0  # the share of the bandwidth limit; microseconds
LEGEND = (
    "Microseconds a step in `lax.scan`, medians; float32, int32; weights donated, contenders in turn in the same loop. "
    "Cases: neurons, synapses from each (random targets), P(spike). hebbax: bounds given, `weight_in_bounds=True`; "
    'clip: the default, every weight is clipped. brainevent: the fastest of its backends ("which"), bounds given: it '
    "clips every weight; without bounds: its default backend, no clipping, for comparison. Pure JAX: hebbax's "
    "`backend='jax'`, `weight_in_bounds=True`. MB: bytes that must move, with weights in sectors of 32 bytes, as the "
    "spikes touch them; limit: these over the bandwidth of a copy; of limit: limit over hebbax's time, above 1 where "
    "data stay in the cache. Times brainevent: medians of the ratios within a round."
)
REHEARSAL = "Rehearsal on a CPU, in small sizes: nothing here says anything about a GPU."


def peers(found: dict) -> list[str]:
    return [name for name in found["contenders"] if name.startswith("brainevent") and name != UNBOUNDED]


def judge(found: dict, spec: Spec, n: int, scale: Scale, row: tuple[int, float], copy_gb_s: float) -> None:
    """Add the fastest peer, the bandwidth limit, and the targets. `row`: synapses a neuron and P(spike)."""
    timings, touched = found["contenders"], Touched(**found["touched"])
    samples = {name: timing["samples_us"] for name, timing in timings.items()}
    fastest = min(peers(found), key=lambda name: timings[name]["median_us"], default=None)
    found |= {"peer": fastest, "ratios": {}, "limits": {}, "targets": []}
    smallest = n == scale.neurons[0] and row == (scale.synapses[0], RATES[1])
    for name in (OURS, CLIP):
        if name not in timings:
            continue
        least = bytes_moved(spec, n, found["nse"], touched, name == CLIP)
        limit = least / copy_gb_s / 1e3
        share = limit / timings[name]["median_us"]
        found["limits"][name] = {"bytes": least, "copy_gb_s": copy_gb_s, "limit_us": limit, "of_limit": share}
        if spec.kind == "update" and touched.elements > scale.many:
            aim(found, f"{name}: of the bandwidth limit", share, Target(name, "", "≥", OF_LIMIT))
        if smallest:
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


def significant(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cells(found: dict) -> list[str]:
    """A row of the table, as `COLUMNS`."""
    timings, failures = found["contenders"], found["failures"]

    def time(name):
        if name in timings:
            return microseconds(timings[name]["median_us"])
        return "fails" if name in failures else ""

    def limit(name):
        known = found["limits"].get(name)
        if not known:
            return [""] * 3
        return [significant(known["bytes"] / 1e6), microseconds(known["limit_us"]), f"{known['of_limit']:.2f}"]

    failed = any(name.startswith("brainevent") for name in failures)
    peer = time(found["peer"]) if found["peer"] else "fails" * failed
    which = (found["peer"] or "").removeprefix("brainevent ")
    missed = [target for target in found["targets"] if not target["reached"]]
    reached = len(found["targets"]) - len(missed)
    verdict = [f"{reached} reached"] * bool(reached) + [f"MISSED {short(target)}" for target in missed]
    return [
        found["size"], time(OURS), time(CLIP), peer, which, time(UNBOUNDED), time(JAX),
        significant(found["ratios"].get(OURS)), significant(found["ratios"].get(CLIP)), *limit(OURS), *limit(CLIP),
        "; ".join(verdict),
    ]  # fmt: skip


def short(target: dict) -> str:
    return f"{target['what']} {target['value']:.3g} ({target['sign']} {target['limit']:g})"


def line(found: dict) -> str:
    """All times of a case."""
    times = [f"{name} {microseconds(timing['median_us'])}" for name, timing in found["contenders"].items()]
    return ", ".join([*times, *(f"{name} FAILS ({reason})" for name, reason in found["failures"].items())])


def counts(results: dict) -> list[list[str]]:
    """How often Python was called, with XLA's default flags and, where that was measured, with those for graphs."""
    rows = []
    for flags, cases in ((results["flags"], results["cases"]), (results["graphs"].get("flags"), graph_cases(results))):
        for found in cases:
            for name, timing in found["contenders"].items():
                if "python_calls" in timing:
                    times = microseconds(timing["median_us"]), str(timing["python_calls"]), str(timing["steps"])
                    rows.append([f"{found['group']}: {found['size']}", name, f"`{flags}`" if flags else "none", *times])
    return rows


def graph_cases(results: dict) -> list[dict]:
    return results["graphs"].get("cases", [])


def failures(results: dict) -> list[str]:
    """Each reason with the contender and the number of cases."""
    every = [*results["cases"], *graph_cases(results)]
    counted = Counter(f"{name}: {reason}" for found in every for name, reason in found["failures"].items())
    told = [f"{what} (cases: {count})" for what, count in counted.items()]
    if "failure" in results["graphs"]:
        told.append(f"with `{results['graphs']['flags']}`: {results['graphs']['failure']}")
    return told


def left_out(results: dict) -> dict[str, str]:
    """Cases that no run measured, and why the last one did not."""
    measured = {f"{found['group']}: {found['size']}" for found in results["cases"]}
    every = {label: reason for run in results["runs"] for label, reason in run["left_out"].items()}
    return {label: reason for label, reason in every.items() if label not in measured}


def verdict(results: dict) -> str:
    targets = [target for found in results["cases"] for target in found["targets"]]
    no_peer = sum(not found["peer"] for found in results["cases"])
    if results["platform"] == "cpu":
        return f"the {len(targets)} targets are a GPU's, and count for nothing here"
    text = f"{sum(target['reached'] for target in targets)} of {len(targets)} targets reached"
    return text + (f"; {no_peer} cases without brainevent, not compared" if no_peer else "")


def markdown(results: dict) -> str:
    machine, runs = results["machine"], results["runs"]
    rehearsal = results["platform"] == "cpu"
    out = [f"# hebbax on {machine['device']}", *[f"**{REHEARSAL}**"] * rehearsal, f"{verdict(results)}."]
    header = [" | ".join(COLUMNS), "|".join(["---"] + ["---:"] * (len(COLUMNS) - 2) + ["---"])]
    for group, cases in groups(results):
        out += [f"## {group}", "\n".join(f"| {row} |" for row in [*header, *(" | ".join(cells(c)) for c in cases)])]
    if missing := left_out(results):
        out += ["Left out:", "\n".join(f"- {label}: {reason}" for label, reason in missing.items())]
    if told := failures(results):
        out += ["What failed:", "\n".join(f"- {text}" for text in told)]
    header = ["case | contender | XLA_FLAGS | µs a step | calls of Python | in steps", "---|---|---|---:|---:|---:"]
    calls = [*header, *(" | ".join(row) for row in counts(results))]
    out += ["## How often Python is called", "\n".join(f"| {row} |" for row in calls)]
    about = [f"{name}: {value}" for name, value in machine.items()]
    about += [f"{name} {number}" for name, number in results["versions"].items()]
    ran = [f"`{r['command']}`, {r['date']}, {r['seconds']} s, copies {r['copy_gb_s']:.0f} GB/s" for r in runs]
    out += ["## How", LEGEND, f"Commit {results['commit']}. {'; '.join(about)}.", "\n".join(f"- {run}" for run in ran)]
    return "\n\n".join(out) + "\n"


def show(results: dict, path: Path) -> None:
    """The last that is printed: the table, and what failed."""
    table = Table(title=f"hebbax on {results['machine']['device']}, {results['commit']}", pad_edge=False)
    for number, name in enumerate(COLUMNS):
        right = 0 < number < len(COLUMNS) - 1
        table.add_column(name.replace(" ", "\n"), justify="right" if right else "left", no_wrap=True)
    for group, cases in groups(results):
        table.add_section()
        table.add_row(f"[bold]{group}")
        for found in cases:
            table.add_row(*cells(found))
    # As wide as the table needs: a narrower terminal breaks lines rather than leave out figures.
    console = Console(width=max(Console().width, Console(width=1000).measure(table).maximum), highlight=False)
    console.print(table)
    if results["platform"] == "cpu":
        console.print(REHEARSAL, markup=False)
    for label, reason in left_out(results).items():
        console.print(f"left out: {label}: {reason}", markup=False)
    for text in failures(results):
        console.print(f"failed: {text}", markup=False)
    console.print(f"{verdict(results)}; {path.with_suffix('')}.{{json,md}}", markup=False)
