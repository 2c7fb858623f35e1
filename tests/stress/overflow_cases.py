"""Run by `overflow` as a program of its own for each group of cases: GROUP, SEED, SHARE of the cases.

Prints a line of JSON for each case: what it was, and if it did not pass, why.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the stand-ins for CUDA are

import overflow_lists
import overflow_operators
import overflow_refused

GROUPS = {
    "inplace": overflow_operators.inplace_cases,
    "clip": overflow_operators.clip_cases,
    "jax": overflow_operators.jax_cases,
    "members": overflow_operators.member_cases,
    "cuda": overflow_operators.cuda_cases,
    "lists": overflow_lists.cases,
    "refused": overflow_refused.cases,
    "real": overflow_operators.real_cases,
}


def main(group: str, seed: str, share: str) -> None:
    taken = 1 - float(share)  # the first is always among them
    for name, run in GROUPS[group](np.random.default_rng(int(seed))):
        taken += float(share)
        if taken < 1 - 1e-9:
            continue
        taken -= 1
        why = ""
        try:
            run()
        except Exception:
            why = traceback.format_exc(limit=-4)
        print(json.dumps({"case": name, "why": why}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
