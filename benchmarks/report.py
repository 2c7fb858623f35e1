"""Results, as one table, as Markdown and as a plot. All read the same dictionary, which is what the JSON file holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cases import BOUND_ONE, BOUND_TWO, CLIP_ONE, CLIP_TWO, ONE, PEER, SOFT, TWO
from tables import groups, microseconds

if TYPE_CHECKING:
    from rich.table import Table

# Columns of the table, in this order; a contender that no case has is left out.
ORDER = (
    ONE,
    TWO,
    CLIP_ONE,
    CLIP_TWO,
    *SOFT.values(),
    "hebbax callback",
    PEER,
    "brainevent jax_raw",
    "NumPy",
    "plain JAX",
    BOUND_ONE,
    BOUND_TWO,
    "empty loop",
)
LEGEND = (
    "Microseconds a step: median, and half the distance between the quartiles in percent. Cases: neurons, synapses a "
    "neuron, P(spike). hebbax: weight_in_bounds=True; clip: default, every weight is clipped; 1t, 2t: threads; bound: "
    "the same slots, known beforehand and sorted; empty loop: the scan without the operator. Judged: medians of the "
    "ratios of times within a round."
)


def _columns(results: dict) -> list[str]:
    present = {name: None for case in results["cases"] for name in (*case["contenders"], *case["failures"])}
    return [name for name in ORDER if name in present] + [name for name in present if name not in ORDER]


def _cell(case: dict, name: str) -> str:
    if name in case["failures"]:
        return "fails"
    if name not in case["contenders"]:
        return ""
    timing = case["contenders"][name]
    low, high = timing["quartiles_us"]
    return f"{microseconds(timing['median_us'])} ±{50 * (high - low) / timing['median_us']:.0f}%"


def _verdict(target: dict, colour: bool) -> str:
    text = f"{target['numerator']} / {target['denominator']}: {_ratio(target)}"
    if not colour:
        return text
    return f"[{'green' if target['reached'] else 'red'}]{text}[/]"


def _ratio(target: dict) -> str:
    ratio, mark = target["ratio"], "pass" if target["reached"] else "MISS"
    number = f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.3g}"
    return f"{number} ({target['sign']} {target['limit']:g}) {mark}"


def table(results: dict) -> Table:
    from rich.table import Table  # which a machine with a GPU may not have

    columns = _columns(results)
    out = Table(title=f"hebbax {results['versions']['hebbax']}, {results['commit']}", caption=LEGEND, pad_edge=False)
    out.add_column("case", no_wrap=True)
    for name in columns:
        out.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    out.add_column("judged", no_wrap=True)
    for group, cases in groups(results):
        out.add_section()
        out.add_row(f"[bold]{group}")
        for case in cases:
            verdicts = "\n".join(_verdict(target, colour=True) for target in case["targets"])
            out.add_row(case["size"], *(_cell(case, name) for name in columns), verdicts)
    return out


def failures(results: dict) -> dict[str, list[str]]:
    """The cases that a contender could not run, by contender and reason, without the digits that differ every time."""
    found: dict[str, list[str]] = {}
    for case in results["cases"]:
        for name, reason in case["failures"].items():
            reason = re.sub(r"_[0-9a-f]{8,}", "", reason)
            found.setdefault(f"{name}: {reason}", []).append(f"{case['group']}: {case['size']}")
    return found


def markdown(results: dict) -> str:
    """The judged cases, without those on threads, as the table of docs/speed.md."""
    names = [ONE, TWO, CLIP_TWO, PEER, "NumPy", "plain JAX"]
    lines = [
        "| "
        + " | ".join(["case (neurons, synapses, P(spike))", *names, "times faster than brainevent (target)"])
        + " |",
        "|---|" + "---:|" * len(names) + "---|",
    ]
    for group, cases in groups(results):
        for case in cases:
            targets = [target for target in case["targets"] if target["numerator"] == PEER]
            if targets:
                times = (case["contenders"].get(name) for name in names)
                cells = (microseconds(timing["median_us"]) if timing else "" for timing in times)
                ratios = ", ".join(_ratio(target) for target in targets)
                lines.append(f"| {group}: {case['size']} | {' | '.join(cells)} | {ratios} |")
    machine, versions = results["machine"], results["versions"]
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    lines += [
        "",
        f"Microseconds a step, medians, from `{results['command']}` at {results['commit']}; {machine['cpu']}, "
        f"{machine['cpus']} CPUs; {packages}. {TWO}: two threads, `weight_in_bounds=True`; clip: the default.",
    ]
    return "\n".join(lines) + "\n"


def plot(results: dict, path: Path) -> None:
    """How many times faster than the peer, for every case that the peer runs; and the targets."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = [
        (group, measured)
        for group, cases in groups(results)
        if (measured := [case for case in cases if PEER in case["contenders"]])
    ]
    # Blue for ours, grey for others; every series has its own marker, for readers without colours.
    series = {
        TWO: dict(marker="o", color="#0b5fa5", label="hebbax, weight_in_bounds=True, 2 threads"),
        CLIP_TWO: dict(marker="s", color="#6aaed6", label="hebbax, default (clips every weight), 2 threads"),
        "hebbax callback": dict(marker="v", color="#b9d4e8", label="hebbax, backend='callback'"),
        "NumPy": dict(marker="x", color="#7f7f7f", label="NumPy"),
        "plain JAX": dict(marker="+", color="#7f7f7f", label="plain JAX"),
        BOUND_TWO: dict(
            marker="D", color="#000000", markerfacecolor="none", label="lower bound (slots known and sorted), 2 threads"
        ),
    }
    if not panels:
        return
    split = _halves([len(cases) for _, cases in panels])
    stacks = [stack for stack in (panels[:split], panels[split:]) if stack]
    columns = len(stacks)
    rows = max(sum(len(cases) + 2 for _, cases in stack) for stack in stacks)
    figure = plt.figure(figsize=(6.4 * columns, 0.24 * rows + 1.1), layout="constrained")
    handles: dict = {}
    shared = None
    for part, stack in zip(figure.subfigures(1, columns, squeeze=False)[0], stacks, strict=True):
        axes = part.subplots(len(stack), 1, squeeze=False, height_ratios=[len(cases) + 1 for _, cases in stack])[:, 0]
        for axis, (group, cases) in zip(axes, stack, strict=True):
            shared = shared or axis
            axis.sharex(shared)
            _panel(axis, group, cases, series, handles)
        axes[-1].set_xlabel(f"times faster than {PEER}")
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=160)
    plt.close(figure)


def _halves(sizes: list[int]) -> int:
    """How many panels go into the first column, so that both are about as long."""
    return min(range(1, len(sizes) + 1), key=lambda i: abs(sum(sizes[:i]) - sum(sizes[i:])))


def _panel(axis, group: str, cases: list[dict], series: dict, handles: dict) -> None:
    axis.set_xscale("log")
    axis.axvline(1, color="#444444", linewidth=0.8)
    for row, case in enumerate(cases):
        peer = case["contenders"][PEER]["median_us"]
        for name, style in series.items():
            if name in case["contenders"]:
                low, high = case["contenders"][name]["quartiles_us"]
                middle = case["contenders"][name]["median_us"]
                axis.plot([peer / high, peer / low], [row, row], color=style["color"], linewidth=1.2)
                (point,) = axis.plot(peer / middle, row, linestyle="none", markersize=5.5, **style)
                handles.setdefault(style["label"], point)
        for target in case["targets"]:
            if target["numerator"] == PEER:
                colour = series[target["denominator"]]["color"]
                limit = target["limit"]
                (mark,) = axis.plot([limit, limit], [row - 0.4, row + 0.4], color=colour, linewidth=3, alpha=0.6)
                handles.setdefault("target of the series in its colour", mark)
    axis.set_yticks(range(len(cases)), [case["size"] for case in cases], fontsize=8)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.set_title(group, loc="left", fontsize=9, fontweight="bold")
    axis.tick_params(axis="x", labelsize=8)
    axis.grid(axis="x", which="major", color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
