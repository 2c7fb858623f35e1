"""Whether the tests bite: a sample of all small changes of kernels, rules and primitives, which they must find.

A change is made in a copy, built there, and tested by the tests that should see it first, and, where those pass and
the effort is 1 or more, by all that `make test` runs. What survives is listed in results/survivors.md, with the reason
where it has no effect. What was found is kept in build/mutations: a run that was cut off goes on, and tries anew what
has survived where a test has changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import queue
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from argued import argument
from mutants import Mutant, mutants
from record import RESULTS, ROOT, Result
from trials import Copy, is_parsed

SEED = 2026
COUNT = 160
WORKERS = 2
KEPT = ROOT / "build" / "mutations"
LOG = KEPT / "found.jsonl"

OPERATORS, INPLACE = "tests/operators/", "tests/outside_jax/test_inplace.py"
STRUCTURE, TRANSFORMATIONS, RULES, CUDA = "tests/structure/", "tests/transformations/", "tests/rules/", "tests/cuda/"


def _tests(folder: str, *names: str) -> list[str]:
    return [f"{folder}test_{name}.py" for name in names]


HOSTILE = _tests(OPERATORS, "hostile_calls")  # in memory between pages that nobody may touch
OF_UPDATES = [INPLACE, *_tests(OPERATORS, "powers", "soft_bound", "threads", "out_of_range", "values"), *HOSTILE]
OF_DELAYS = [*_tests(STRUCTURE, "delayed_synapses", "ring"), *_tests(RULES, "delayed_rules")]
OF_CUDA = [*_tests(CUDA, "rows", "emulation", "cuda_host", "native", "cupy_inplace"), *_tests(OPERATORS, "values")]
OF_RULES = [*_tests(RULES, "rules", "parameters"), *_tests(STRUCTURE, "sent")]
# Parts of what is changed, with their share of the sample, and the tests that should see each file first.
NEAR: dict[str, list[str]] = {
    "src/hebbax/_cpu/update.pyx": OF_UPDATES,
    "src/hebbax/_cpu/bounds.pxd": OF_UPDATES,
    "src/hebbax/_cpu/powers.pxd": [*_tests(RULES, "late"), *OF_UPDATES],
    "src/hebbax/_cpu/pieces.pxd": _tests(RULES, "late"),
    "src/hebbax/_cpu/visit.pyx": _tests(RULES, "late"),
    "src/hebbax/_cpu/visits.pyx": _tests(RULES, "late"),
    "src/hebbax/_cpu/propagate.pyx": [
        *_tests(OPERATORS, "values", "threads", "out_of_range"), INPLACE, *_tests(TRANSFORMATIONS, "shared_weight"),
        *_tests(STRUCTURE, "sent"), *HOSTILE,
    ],
    "src/hebbax/_cpu/collect.pyx": [
        *_tests(TRANSFORMATIONS, "gain_sums", "jvp", "grad"), *_tests(OPERATORS, "threads", "out_of_range"),
        *_tests(TRANSFORMATIONS, "shared_weight"), *HOSTILE,
    ],
    "src/hebbax/_cpu/rows.pyx": [
        *_tests(OPERATORS, "values", "threads", "out_of_range"), INPLACE,
        *_tests(STRUCTURE, "sent", "delayed_synapses"), *_tests(OPERATORS, "semantics"),
        *_tests(RULES, "delayed_rules"), *HOSTILE,
    ],
    "src/hebbax/_cpu/calls.pyx": [
        *_tests(OPERATORS, "values", "out_of_range", "threads"), INPLACE,
        *_tests(STRUCTURE, "sent", "delayed_synapses"),
        *_tests(TRANSFORMATIONS, "vmap", "vmap_cost", "shared_weight"), *_tests(STRUCTURE, "split_batches"), *HOSTILE,
    ],
    "src/hebbax/_cpu/handlers.pyx": [
        *_tests("tests/outside_jax/", "dlpack", "inplace"),
        *_tests(OPERATORS, "values", "foreign", "backends", "threads"),
        *_tests(TRANSFORMATIONS, "vmap", "jvp", "shared_weight"), *HOSTILE,
    ],
    "src/hebbax/_cpu/exchange.pyx": [*_tests(STRUCTURE, "exchange", "sent", "sharding"), *HOSTILE],
    "src/hebbax/_cpu/tiles.pyx": [*_tests(STRUCTURE, "apply"), *HOSTILE],
    "src/hebbax/_cpu/threads.pyx": [
        *_tests(OPERATORS, "threads", "values", "forks"), INPLACE, *_tests("tests/outside_jax/", "signals"),
        *_tests(STRUCTURE, "sharding"),
    ],
    "src/hebbax/_cpu/buffers.pxd": [INPLACE, *_tests(OPERATORS, "values", "semantics", "threads")],
    "src/hebbax/_cpu/pages.pxd": [*_tests(OPERATORS, "huge_pages"), INPLACE],
    "cuda/call.cu": OF_CUDA,
    "cuda/rows.cu": OF_CUDA,
    "cuda/update.cu": OF_CUDA,
    "cuda/propagate.cu": OF_CUDA,
    "cuda/collect.cu": [*_tests(TRANSFORMATIONS, "gain_sums", "shared_weight", "jvp", "grad"), *OF_CUDA],
    "src/hebbax/_core/primitives.py": [
        *_tests(OPERATORS, "values"), *_tests(TRANSFORMATIONS, "jvp", "grad", "vmap", "jit", "shared_weight"),
        *_tests(TRANSFORMATIONS, "debug", "grad_cost", "vmap_cost"),
    ],
    "src/hebbax/_core/events.py": OF_DELAYS,
    "src/hebbax/_core/delivery.py": [*OF_DELAYS, *_tests(RULES, "grad_rules")],
    "src/hebbax/_core/sent.py": _tests(STRUCTURE, "sent", "sharding"),
    "src/hebbax/_core/members.py": _tests(STRUCTURE, "split_batches"),
    "src/hebbax/rules/_parameters.py": OF_RULES,
    "src/hebbax/rules/_traces.py": [
        *OF_RULES, *_tests(OPERATORS, "forks"),
        *_tests(RULES, "delayed_rules", "grad_rules", "clopath", "homeostasis", "reward"),
    ],
    **{
        f"src/hebbax/rules/{name}.py": [*_tests(RULES, *(own or ["rules"])), *OF_RULES, *_tests(RULES, "grad_rules")]
        for name, own in {
            "clopath": ["clopath"], "diehl_cook": [], "homeostasis": ["homeostasis"], "inhibitory": [], "pair": [],
            "power_law": [], "reward": ["reward"], "short_term": ["short_term"], "triplet": [],
        }.items()
    },
}  # fmt: skip
QUICK = "not gil and not computed_by_jax and not process"  # leaves out what takes longest
SHARES = {"src/hebbax/_cpu/": 0.5, "cuda/": 0.1, "src/hebbax/rules/": 0.24, "src/hebbax/_core/": 0.16}


def sample(seed: int = SEED) -> list[Mutant]:
    """All changes, in an order whose every beginning is a sample: of each part its share, and of each file its own."""
    order = []
    for part, share in SHARES.items():
        files = {path: mutants(path, (ROOT / path).read_text("utf-8")) for path in NEAR if path.startswith(part)}
        whole = sum(map(len, files.values()))
        for path, found in files.items():
            chance = random.Random(f"{seed} {path}")
            chance.shuffle(found)
            offset = chance.random()
            order += [((k + offset) * whole / (share * len(found)), x) for k, x in enumerate(found)]
    return [x for _, x in sorted(order)]


def line_of(mutant: Mutant) -> str:
    return (ROOT / mutant.path).read_text("utf-8").splitlines()[mutant.line - 1]


def run(effort: float, say: Callable[[str], None]) -> list[Result]:
    """Try a sample: first all by the tests near them, and then by all tests what is left and has no reason to be."""
    KEPT.mkdir(parents=True, exist_ok=True)
    chosen = sample()[: max(1, round(COUNT * effort))]
    known = _known()

    def work(copy: Copy, mutant: Mutant, whole: bool) -> dict:
        start, earlier = time.perf_counter(), known.get(key_of(mutant), {})
        way, by = _try(copy, mutant, whole)
        seconds = round(time.perf_counter() - start + earlier.get("seconds", 0), 1)
        whole |= earlier.get("whole", False)
        return dict(key=key_of(mutant), way=way, by=by, seconds=seconds, whole=whole, tests=_digest(mutant))

    def is_left(mutant: Mutant, whole: bool) -> bool:
        entry = known.get(key_of(mutant))
        if argument(mutant, line_of(mutant)) or (entry and entry["way"] != "survived"):
            return False
        if entry is None:
            return True
        return not entry["whole"] if whole else entry["tests"] != _digest(mutant)

    with ThreadPoolExecutor(WORKERS) as pool:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()

        def one(mutant: Mutant, whole: bool) -> None:
            copy = copies.get()
            try:
                entry = work(copy, mutant, whole)
            finally:
                copies.put(copy)
            known[entry["key"]] = entry
            with LOG.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            say(f"{entry['way']}, {entry['seconds']:.0f} s: {mutant.name} {entry['by']}")

        for whole in (False, True)[: 1 + (effort >= 1)]:
            left = [x for x in chosen if is_left(x, whole)]
            while left and copies.qsize() < WORKERS:
                copies.put(Copy(KEPT / str(copies.qsize())))
            list(pool.map(one, left, [whole] * len(left)))
    argued = dict(way="survived", by="", seconds=0, whole=False)
    return _report([(x, known.get(key_of(x), argued)) for x in chosen])


def _known() -> dict[str, dict]:
    """What earlier runs found, of each change the last word."""
    lines = LOG.read_text("utf-8").splitlines() if LOG.exists() else []
    return {entry["key"]: entry for entry in map(json.loads, lines)}


@functools.cache
def _digest(mutant: Mutant) -> str:
    """Changes where a test near it does: then what has survived is tried again."""
    return hashlib.sha256(b"".join((ROOT / x).read_bytes() for x in NEAR[mutant.path])).hexdigest()[:16]


def key_of(mutant: Mutant) -> str:
    """A change and the line in which it is made: what is elsewhere in the file may change meanwhile."""
    return f"{mutant.path}:{mutant.column}: {line_of(mutant).strip()} | {mutant.old} -> {mutant.new}"


def _try(copy: Copy, mutant: Mutant, whole: bool) -> tuple[str, str]:
    """How it ends, "found", "survived" or "not built", and the test that found it."""
    text = mutant.applied((ROOT / mutant.path).read_text("utf-8"))
    near, quick = NEAR[mutant.path], QUICK if mutant.path.endswith(".cu") else f"{QUICK} and not cupy"
    try:
        if not is_parsed(mutant.path, text) or not copy.put(mutant.path, text):
            return "not built", ""
        by = copy.found_by(["tests"] if whole else [*near, "-k", quick])
        return ("found", by) if by else ("survived", "")
    finally:
        copy.take_back(mutant.path)


def _report(tried: list[tuple[Mutant, dict]]) -> list[Result]:
    rows, text = [], ["# What the tests did not find", ""]
    for part in SHARES:
        own = [(x, entry) for x, entry in tried if x.path.startswith(part)]
        why = {x: argument(x, line_of(x)) for x, entry in own if entry["way"] == "survived"}
        ways = Counter(entry["way"] for _, entry in own)
        argued = sum(map(bool, why.values()))
        alive, found = ways["survived"] - argued, ways["found"]
        share = found / max(found + alive, 1)
        hang = sum("(hangs)" in entry["by"] for _, entry in own)
        said = f"{found} of {found + alive} found ({share:.1%}; {hang} by a limit of time)"
        said += f"; besides, {argued} argued to be without effect, {ways['not built']} that do not compile"
        seconds = round(sum(entry["seconds"] for _, entry in own), 1)
        rows.append(Result(f"changes of {part}", len(own), "changes", seconds, said, share >= 0.95, SEED))
        for x, entry in own:
            if entry["way"] == "survived":
                reason = why[x] or ("all tests" if entry["whole"] else "the tests near it") + " pass"
                text += [f"- `{x.name}`: {reason}", f"  `{line_of(x).strip()}`"]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "survivors.md").write_text("\n".join(text) + "\n", "utf-8")
    return rows
