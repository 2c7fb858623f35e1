"""What XLA's loops take by themselves, and with an update in them: run as a script, with the flags of its environment.

A step of a small network takes as long as its launches. XLA puts what it launches into CUDA graphs where that is enough
for one, as its flags say; `unroll` gives it more.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FLAGS = {
    "XLA's own flags": "",
    "graphs of anything": "--xla_gpu_graph_min_graph_size=1",
    "graphs of loops": "--xla_gpu_graph_min_graph_size=1 --xla_gpu_enable_command_buffer=+WHILE",
}
SIZE = {"cuda": (10_000, 100, 64, 1088), "cpu": (100, 10, 2, 6)}  # neurons, synapses of each; few and many steps
UNROLLED = 16


def cases(options):
    for name, flags in FLAGS.items():
        yield name, functools.partial(under, options, flags)


def under(options, flags: str) -> dict[str, float]:
    """The microseconds of a step of each loop, in a process with these flags."""
    given = f"{os.environ.get('XLA_FLAGS', '')} {flags if options.on_gpu else ''}".strip()
    command = [sys.executable, __file__, options.platform]
    limit = max(1, options.until - time.time() - 2)
    done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": given}, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr.strip()[-300:]
    return {"flags": flags, "us_a_step": json.loads(done.stdout.splitlines()[-1])}


def main(platform: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import gpu_cases
    import jax
    import jax.numpy as jnp
    from cases import Case

    import hebbax
    from hebbax._core.specs import UPDATE_PRE

    n, synapses, few, many = SIZE[platform]
    pre = jax.block_until_ready(gpu_cases.network(n, synapses)).pre
    spikes = jnp.asarray(gpu_cases.spikes(Case(UPDATE_PRE, n, synapses, 0.01)))
    weight, trace = jnp.full(n * synapses, 0.5), jnp.full(n, 0.01)

    def update(weight, i):
        return hebbax.update_csr_on_binary_pre(
            weight, pre.indices, pre.indptr, spikes[i % len(spikes)], trace, w_min=0.0, w_max=1.0, shape=(n, n),
            weight_in_bounds=True,
        )  # fmt: skip

    def decay(trace, i):
        return 0.5 * trace + i

    def loop(step, steps, unroll, state):
        return jax.lax.scan(lambda state, i: (step(state, i), None), state, jnp.arange(steps), unroll=unroll)[0]

    def a_step(step: Callable, state: jax.Array, unroll: int = 1) -> float:
        taken = []
        for steps in (few, many):
            run = jax.jit(functools.partial(loop, step, steps, unroll))
            run(state).block_until_ready()
            times = []
            for _ in range(5):
                start = time.perf_counter()
                run(state).block_until_ready()
                times.append(time.perf_counter() - start)
            taken.append(min(times))
        return 1e6 * (taken[1] - taken[0]) / (many - few)

    told = {"a multiplication": a_step(decay, trace), "update pre": a_step(update, weight)}
    print(json.dumps(told | {f"update pre, unroll={UNROLLED}": a_step(update, weight, UNROLLED)}))


if __name__ == "__main__":
    main(sys.argv[1])
