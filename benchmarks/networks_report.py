"""Results of `bench_networks.py`, as one table, as Markdown and as a plot, all from what the JSON file holds."""

from __future__ import annotations

import statistics
from pathlib import Path

MEGA = 1e6
METRICS = {"wall_per_second": "time", "before_first_step": "time to the first step", "memory": "peak memory"}
COLUMNS = (
    "s per s", "plastic / static", "first step after, s", "compiling, s", "building, s", "peak memory, MB",
    "bytes per plastic synapse", "rate, Hz", "weights at the end",
)  # fmt: skip
LEGEND = (
    "s per s: wall seconds of the steps per biological second, median of the rounds; first step after: from the start "
    "of the process, with imports, compilation and building; peak memory: of the process, Brian2: of its Python and "
    "its compiled program together (they are there at once), without its compiler; bytes per plastic synapse: what a "
    "run takes beyond the imported packages, over the plastic synapses; weights: mean ± SD of the plastic ones."
)


def _median(outcomes: list[dict], metric: str) -> float:
    return statistics.median(outcome[metric] for outcome in outcomes)


def _digits(value: float) -> str:
    """Three significant digits, thousands apart."""
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{places}f}".replace(",", " ")


def cells(runs: dict) -> list[str]:
    """A contender's row, in the order of COLUMNS."""
    plastic, static = runs["plastic"], runs["static"]
    wall, last = _median(plastic, "wall_per_second"), plastic[-1]
    own = _median(plastic, "memory") - _median(plastic, "memory_before")
    return [
        _digits(wall),
        f"{wall / _median(static, 'wall_per_second'):.2f}" if static else "",
        *(_digits(_median(plastic, metric)) for metric in ("before_first_step", "compilation", "build")),
        f"{_median(plastic, 'memory') / MEGA:.0f}",
        f"{own / last['plastic_synapses']:.0f}",
        f"{_median(plastic, 'rate'):.2f}",
        f"{last['weight_mean']:.4g} ± {last['weight_sd']:.2g}",
    ]


def verdict(row: dict, target: dict) -> str:
    void = {target["numerator"].removesuffix(" static"), target["denominator"].removesuffix(" static")} & {*row["void"]}
    mark = "void, another network" if void else "pass" if target["reached"] else "MISS"
    names = f"{target['numerator']} / {target['denominator']}"
    return f"{METRICS[target['metric']]}, {names}: {target['ratio']:.3g} ({target['sign']} {target['limit']:g}) {mark}"


def chooser(results: dict) -> list[str]:
    """Lines of the one table that who chooses a simulator needs: each at its best number of threads."""
    simulators = dict.fromkeys(name.rpartition(" ")[0] for row in results["networks"] for name in row["contenders"])
    lines = [f"| network | {' | '.join(simulators)} |", "|---|" + "---:|" * len(simulators)]
    for row in results["networks"]:
        best = []
        for simulator in simulators:
            walls = [
                (_median(runs["plastic"], "wall_per_second"), name)
                for name, runs in row["contenders"].items()
                if name.rpartition(" ")[0] == simulator and name not in row["void"]
            ]
            best.append(f"{_digits(min(walls)[0])} ({min(walls)[1].rpartition(' ')[2]})" if walls else "")
        lines.append(f"| {row['network']}: {row['size']} | {' | '.join(best)} |")
    return lines


def markdown(results: dict) -> str:
    lines = [
        *chooser(results),
        "",
        "Wall seconds per biological second of the plastic networks, each simulator at its best number of threads (t).",
        "",
        f"| network, contender | {' | '.join(COLUMNS)} |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for row in results["networks"]:
        lines += [f"| **{row['network']}** |" + " |" * len(COLUMNS)]
        for name, runs in row["contenders"].items():
            mark = " (void, another network)" if name in row["void"] else ""
            lines.append(f"| {name}{mark} | {' | '.join(cells(runs))} |")
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines += ["", LEGEND, ""]
    for row in results["networks"]:
        lines += [f"- {row['network']}: {verdict(row, target)}" for target in row["targets"]]
        lines += [f"- {row['network']}: {name} failed: {reason}" for name, reason in row["failures"].items()]
    lines += [
        "",
        f"From `{results['command']}` at {results['commit']}; {machine['cpu']}, {machine['cpus']} CPUs, load "
        f"{machine['load_average'][0]} before and {machine['load_average_after'][0]} after; {packages}.",
    ]
    return "\n".join(lines) + "\n"


def show(results: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"hebbax {results['versions']['hebbax']}, {results['commit']}", caption=LEGEND, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in results["networks"]:
        table.add_section()
        table.add_row(f"[bold]{row['network']}")
        for name, runs in row["contenders"].items():
            table.add_row(name + " void" * (name in row["void"]), *cells(runs))
    # As wide as the table needs, as in bench.py.
    console = Console(width=max(Console().width, Console(width=1000).measure(table).maximum))
    console.print(table)
    for row in results["networks"]:
        for target in row["targets"]:
            console.print(f"{row['network']}: {verdict(row, target)}", highlight=False)
        for name, reason in row["failures"].items():
            console.print(f"{row['network']}: {name} failed: {reason}", markup=False, highlight=False)


def plot(results: dict, path: Path) -> None:
    """Seconds per biological second, a panel for each network; plastic filled, static open."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = [row for row in results["networks"] if row["contenders"]]
    if not rows:
        return
    figure, axes = plt.subplots(1, len(rows), figsize=(3.2 * len(rows), 2.6), squeeze=False, layout="constrained")
    for axis, row in zip(axes[0], rows, strict=True):
        names = list(row["contenders"])
        for place, (name, runs) in enumerate(row["contenders"].items()):
            colour = "#0b5fa5" if name.startswith("hebbax") else "#7f7f7f"
            walls = [outcome["wall_per_second"] for outcome in runs["plastic"]]
            axis.plot([min(walls), max(walls)], [place, place], color=colour, linewidth=1.2)
            axis.plot(statistics.median(walls), place, "o", color=colour, label="plastic" if not place else None)
            if runs["static"]:
                static = _median(runs["static"], "wall_per_second")
                axis.plot(static, place, "o", color=colour, fillstyle="none", label="static" if not place else None)
        axis.set_xscale("log")
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.invert_yaxis()
        axis.set_title(f"{row['network']}\n{row['size']}", loc="left", fontsize=9)
        axis.set_xlabel("wall seconds per biological second", fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=160)
    plt.close(figure)
