"""Results of `gpu_check.py` in words and tables; all of it from the dictionary that the JSON file holds."""

from __future__ import annotations

from collections import Counter

from tables import groups, microseconds

OURS, CLIP = "hebbax", "hebbax clip"  # with weight_in_bounds=True; default: every weight is clipped
JAX = "hebbax jax"  # pure JAX, backend='jax', with weight_in_bounds=True
UNBOUNDED = "brainevent, no bounds"
COLUMNS = (
    "case", OURS, CLIP, "brainevent", "which", "without bounds", "pure JAX", "times brainevent", "clip: times",
    "MB", "limit", "of limit", "clip: MB", "clip: limit", "clip: of limit", "Python a step", "targets",
)  # fmt: skip
KERNEL_COLUMNS = ("case", "µs", "limit, µs", "which", "of limit", "target")
OF_LIMIT, MANY = 0.7, 1_000_000  # what an update must reach of its limit, where so many elements are updated
# The bare kernel that limits an operator.
LIMITS = {
    "update post": "random read-modify-write", "update pre": "gather",
    "propagate pre": "atomic add", "propagate post": "random read and add",
}  # fmt: skip
STEPS = (
    "Microseconds a step in `lax.scan`, medians; float32, int32; weights donated, contenders in turn in the same loop. "
    "Cases: neurons, synapses from each (random targets), P(spike). hebbax: bounds given, `weight_in_bounds=True`; "
    'clip: the default, every weight is clipped. brainevent: the fastest of its backends ("which"), bounds given: it '
    "clips every weight; without bounds: its default backend, no clipping, for comparison. Pure JAX: hebbax's "
    "`backend='jax'`, `weight_in_bounds=True`. MB: bytes that must move, with weights in sectors of 32 bytes, as the "
    "spikes touch them; limit: these over the bandwidth of a copy; of limit: limit over hebbax's time, above 1 where "
    "data stay in the cache. Times brainevent: medians of the ratios within a round."
)
KERNELS = (
    "Microseconds of one call of `hebbax.inplace` on the device, medians, bounds given, `weight_in_bounds=True`, "
    "eight spike vectors in turn, from a CUDA graph that is replayed (queued: behind a kernel that waits). Limits are "
    "bare kernels (`benchmarks/limits.cu`) that are told where their elements lie and do nothing else: of updates "
    "onto spiking neurons, as many reads and writes at random places; of updates from spiking neurons, as many "
    "weights in a row, each changed by a number that an index names (the traces, which lie in the L2 cache, but not "
    "in a multiprocessor's); of sums from spiking neurons, as many atomic additions; of sums onto spiking neurons, as "
    "many of numbers that are read at random places."
)
LOOPS = (
    "Microseconds a step in `lax.scan`, at 10 000 neurons, 100 synapses, 1%: of one multiplication of 10 000 numbers, "
    "of an update, and of one where 16 steps are unrolled. What the first takes is XLA's: a launch, and its loop."
)
NOTHING: dict = {"cases": {}}  # a stage that was not asked for
REHEARSAL = "Rehearsal on a CPU, in small sizes: no time here says anything about a GPU."


# -- a stage


def failures(stage: dict) -> list[str]:
    """What failed: cases, those of hebbax's contenders in a case that went on, and the stage itself."""
    told = [f"{name}: {case['failure']}" for name, case in stage["cases"].items() if "failure" in case]
    for name, case in measured(stage).items():
        told += [f"{name}: {who}: {case['failures'][who]}" for who in (OURS, CLIP) if who in case.get("failures", ())]
    return told + ([stage["ended"]] if failed_itself(stage) else [])


def failed_itself(stage: dict) -> bool:
    return "ended" in stage and "seconds" in stage


def failed(stage: dict) -> bool:
    return bool(failures(stage))


def left_out(stage: dict) -> list[str]:
    """Cases for which there was no time."""
    return stage.get("left_out", []) or ([stage["ended"]] if "ended" in stage and not failed_itself(stage) else [])


def measured(stage: dict) -> dict[str, dict]:
    """What cases have found, where that is a dictionary."""
    return {name: case["result"] for name, case in stage["cases"].items() if isinstance(case.get("result"), dict)}


def line(name: str, stage: dict) -> str:
    """How a stage went."""
    cases = stage["cases"].values()
    counts = [f"{sum('result' in case for case in cases)} done"]
    counts += [f"{count} skipped"] if (count := sum("skipped" in case for case in cases)) else []
    counts += [f"{len(told)} FAILED"] if (told := failures(stage)) else []
    counts += [f"{len(told)} left out"] if (told := left_out(stage)) else []
    return f"{name}: {', '.join(counts)}; {stage.get('seconds', 0):.0f} of {stage['limit']} s"


def summary(results: dict) -> str:
    """What failed, and why something was not done, in text."""
    told = []
    for name, stage in results["stages"].items():
        told += [f"{name} FAILED: {text}" for text in failures(stage)]
        reasons = Counter(case["skipped"] for case in stage["cases"].values() if "skipped" in case)
        told += [f"{name}: {count} skipped: {reason}" for reason, count in reasons.items()]
        if missing := left_out(stage):
            told.append(f"{name}: no time for {len(missing)}: {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}")
    return "\n".join([*told, verdict(results)])


def verdict(results: dict) -> str:
    if results["platform"] == "cpu":
        return REHEARSAL
    targets = [
        target["reached"]
        for name in ("steps", "peers")
        for case in measured(results["stages"].get(name, NOTHING)).values()
        for target in case["targets"]
    ]
    targets += [row[-1] == "reached" for row in kernel_rows(results) if row[-1]]
    return f"{sum(targets)} of {len(targets)} targets reached." if targets else "No target was measured."


# -- Markdown


def markdown(results: dict) -> str:
    stages = results["stages"]
    about = stages.get("machine", NOTHING)
    card = measured(about).get("card", {}).get("device", "an unknown card")
    out = [f"# hebbax on {card}", f"**{verdict(results)}**"]
    rows = [[name, stage["title"], line(name, stage).partition(": ")[2]] for name, stage in stages.items()]
    out += [table(("stage", "what", "how it went"), rows)]
    notes = summary(results).splitlines()[:-1]
    out += ["\n".join(f"- {note}" for note in notes)] if notes else []
    if rows := loop_rows(stages):
        out += ["## Python in loops", table(("stage", "case", "Python a step"), rows)]
    if rows := flag_rows(stages):
        columns = next(iter(measured(stages["loops"]).values()))["us_a_step"]
        out += ["## XLA's loops", LOOPS, table(("", "flags", *columns), rows)]
    if rows := kernel_rows(results):
        out += ["## Kernels", KERNELS, copied(results), table(KERNEL_COLUMNS, rows)]
    for name in ("steps", "peers"):
        found = {"cases": list(measured(stages.get(name, NOTHING)).values())}
        if found["cases"]:
            out += [f"## {stages[name]['title'].capitalize()}", STEPS]
        for group, cases in groups(found):
            out += [f"### {group}", table(COLUMNS, [cells(case) for case in cases])]
    out += ["## How", f"`{results['command']}`, {results['date']}, commit {results['commit']}."]
    out += ["\n".join(f"- {name}: {case}" for name, case in flat(measured(about)).items())]
    return "\n\n".join(out) + "\n"


def table(header: tuple, rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 2) + ["---"], *rows]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in lines)


def flat(found: dict) -> dict[str, str]:
    """One entry for each fact about the machine."""
    return {
        name: "; ".join(f"{key} {x}".replace("\n", " ").strip() for key, x in case.items())
        for name, case in found.items()
    }


def loop_rows(stages: dict) -> list[list[str]]:
    """How often Python is entered in a step, with default flags, in CUDA graphs and without."""
    return [
        [stage, name.removesuffix(", scan"), significant(case["python_a_step"])]
        for stage in ("smoke", "graphs", "no-graphs")
        for name, case in measured(stages.get(stage, NOTHING)).items()
        if "python_a_step" in case
    ]


def flag_rows(stages: dict) -> list[list[str]]:
    """What a step takes in XLA's loops, under its flags."""
    return [
        [name, f"`{case['flags']}`" if case["flags"] else "", *map(microseconds, case["us_a_step"].values())]
        for name, case in measured(stages.get("loops", NOTHING)).items()
    ]


def copied(results: dict) -> str:
    copy = measured(results["stages"]["kernels"]).get("copy")
    return f"A copy: {copy['gb_s']:.0f} GB/s, read and written." if copy else "No copy was measured."


def kernel_rows(results: dict) -> list[list[str]]:
    """Times of operators beside their limits."""
    found, rows = measured(results["stages"].get("kernels", NOTHING)), []
    for name, case in found.items():
        task, _, size = name.partition(": ")
        if task not in LIMITS:
            continue
        which = LIMITS[task]
        known = found.get(f"{which}: {size}", {}).get("us")
        share = known / case["us"] if known else None
        judged = bool(known) and task.startswith("update") and case["elements"] > MANY
        target = ("reached" if share >= OF_LIMIT else f"MISSED ({OF_LIMIT})") if judged else ""
        title = name + " (queued)" * case["how"].startswith("queued")
        told = microseconds(known) if known else ""
        rows.append([title, microseconds(case["us"]), told, which, significant(share), target])
    return rows


def significant(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cells(found: dict) -> list[str]:
    """A row of the table of steps, as `COLUMNS`."""
    timings, failed_ones = found["contenders"], found["failures"]

    def time(name):
        if name in timings:
            return microseconds(timings[name]["median_us"])
        return "fails" if name in failed_ones else ""

    def limits(name):
        known = found["limits"].get(name)
        if not known:
            return [""] * 3
        return [significant(known["bytes"] / 1e6), microseconds(known["limit_us"]), f"{known['of_limit']:.2f}"]

    failing = any(name.startswith("brainevent") for name in failed_ones)
    peer = time(found["peer"]) if found["peer"] else "fails" * failing
    which = (found["peer"] or "").removeprefix("brainevent ")
    missed = [target for target in found["targets"] if not target["reached"]]
    reached = len(found["targets"]) - len(missed)
    judged = [f"{reached} reached"] * bool(reached) + [f"MISSED {short(target)}" for target in missed]
    return [
        found["size"], time(OURS), time(CLIP), peer, which, time(UNBOUNDED), time(JAX),
        significant(found["ratios"].get(OURS)), significant(found["ratios"].get(CLIP)), *limits(OURS), *limits(CLIP),
        significant(timings.get(OURS, {}).get("python_a_step")), "; ".join(judged),
    ]  # fmt: skip


def short(target: dict) -> str:
    return f"{target['what']} {target['value']:.3g} ({target['sign']} {target['limit']:g})"
