"""Draw docs/agreement.png: `PYTHONPATH=tests python tests/rules/agreement_figure.py`, with hebbax[test] installed."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import test_agreement as agreement

import hebbax

PATH = Path(__file__).parents[2] / "docs" / "agreement.png"
BEFORE, AFTER = "#0b5fa5", "#c1272d"  # pre before post, post before pre


def pair_window(axis):
    """The change by one pair of spikes: the exact exponentials, and what the rule makes of pairs at some lags."""
    a_plus, a_minus = agreement.NEST_PAIR["a_plus"], agreement.NEST_PAIR["a_minus"]
    lags = np.arange(-800, 801, 50)  # steps of 0.1 ms
    steps = np.arange(802)[:, None]
    pre, post = steps == np.maximum(-lags, 0), steps == np.maximum(lags, 0)
    rule = hebbax.PairSTDP(**agreement.quantities(agreement.NEST_PAIR))
    start = np.full(lags.size, 7.5)
    change = agreement.run(rule, agreement.one_to_one(lags.size), start, pre, post)[-1] - start
    times = np.linspace(0, 80, 400)
    axis.plot(times, a_plus * np.exp(-times / agreement.TAU_PLUS), color=BEFORE)
    axis.plot(-times, -a_minus * np.exp(-times / agreement.TAU_MINUS), color=AFTER)
    axis.plot(lags * agreement.DT, change, "o", color="black", markersize=3.5, label="PairSTDP")
    axis.plot([], [], color="#7f7f7f", label="exact")
    axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axis.axvline(0, color="#999999", linewidth=0.6, zorder=0)
    axis.set_xlabel("time of post minus time of pre (ms)")
    axis.set_ylabel("change of the weight")
    axis.set_title("One pair of spikes", loc="left", fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def frequency_dependence(axis):
    """The change by 60 pairs over their frequency: measured, by the triplet rule, and by the best pair rule."""
    triplet = agreement.TRIPLET["all, minimal"]
    changes = agreement.pairing_experiment(hebbax.TripletSTDP(**agreement.quantities(triplet)))
    for lag, colour in ((agreement.LAG, BEFORE), (-agreement.LAG, AFTER)):
        label = f"pre {'before' if lag > 0 else 'after'} post, {abs(lag):.0f} ms"
        measured = agreement.MEASURED[lag], agreement.ERROR[lag]
        axis.errorbar(agreement.FREQUENCIES, *measured, color=colour, fmt="o", markersize=4, capsize=2, label=label)
        axis.plot(agreement.FREQUENCIES, changes[lag], color=colour)
    pair = agreement.best_pair_rule("all")[0]
    for lag, colour in ((agreement.LAG, BEFORE), (-agreement.LAG, AFTER)):
        axis.plot(agreement.FREQUENCIES, pair[lag], color=colour, linestyle=":")
    axis.plot([], [], color="#7f7f7f", label="TripletSTDP")
    axis.plot([], [], color="#7f7f7f", linestyle=":", label="best PairSTDP")
    axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axis.set_xlabel("frequency of the pairs (Hz)")
    axis.set_ylabel("relative change of the weight")
    axis.set_title("60 pairs of spikes; points: Sjöström et al. (2001)", loc="left", fontsize=10)
    axis.legend(frameon=False, fontsize=8)


def main():
    with agreement.enable_x64(True), plt.rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
        pair_window(axes[0])
        frequency_dependence(axes[1])
        figure.savefig(PATH, dpi=160)


if __name__ == "__main__":
    main()
