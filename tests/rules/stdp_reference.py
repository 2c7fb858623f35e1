"""STDP in closed form: one synapse, two spike trains, and the weight after every step in which either neuron spikes.

Nothing here is recursive but the weight. The change that a spike makes is written out as a sum over the earlier spikes,

    K(t, s) = sum of exp(-(t - t_k) / tau) over the spikes t_k < t of the train s    (or only the last of them),

in NumPy and double precision, without traces and without hebbax. Spikes are ascending step numbers; `dt` and the time
constants have the same unit.

    NEST's stdp_synapse and others: S. Song, K. D. Miller & L. F. Abbott (2000), doi:10.1038/78829, additive;
    R. Gütig et al. (2003), doi:10.1523/JNEUROSCI.23-09-03697.2003, power laws of the weight
    A. Morrison, A. Aertsen & M. Diesmann (2007), doi:10.1162/neco.2007.19.6.1437, a power law without an upper bound
    J.-P. Pfister & W. Gerstner (2006), doi:10.1523/JNEUROSCI.1425-06.2006, triplets
    T. P. Vogels et al. (2011), doi:10.1126/science.1211095, inhibitory synapses
    F. Zenke, G. Hennequin & W. Gerstner (2013), doi:10.1371/journal.pcbi.1003330, triplets with homeostasis
    C. Clopath et al. (2010), doi:10.1038/nn.2479, by the postsynaptic voltage
    M. Tsodyks, K. Pawelzik & H. Markram (1998), doi:10.1162/089976698300017502, short-term plasticity
    P. U. Diehl & M. Cook (2015), doi:10.3389/fncom.2015.00099, changes on postsynaptic spikes only
"""

import numpy as np


def kernel(times, spikes, tau, dt, pairing="all"):
    """K at each of `times`. A spike at that very time does not count."""
    lag = (np.asarray(times)[:, None] - np.asarray(spikes)[None, :]) * dt
    terms = np.exp(-np.where(lag > 0, lag, np.inf) / tau)
    return terms.sum(1) if pairing == "all" else terms.max(1, initial=0.0)  # the last spike's term is the largest


def pair(
    pre, post, weight, *, tau_plus, tau_minus, a_plus, a_minus, w_min, w_max, mu_plus=0.0, mu_minus=0.0, pairing="all",
    dt, first="depression",
):  # fmt: skip
    """Return the steps with a spike and the weight after each, for the pair rule.

    Where spikes coincide, both sums leave the other spike out; `first` says which of the two changes is made first.
    """
    down = a_minus * kernel(pre, post, tau_minus, dt, pairing)
    up = a_plus * kernel(post, pre, tau_plus, dt, pairing)
    return replay(pre, post, weight, down, up, w_min, w_max, mu_minus, mu_plus, first)


def power_law(pre, post, weight, *, tau_plus, tau_minus, learning_rate, alpha, w_0, mu=0.4, dt, first="depression"):
    """The same for the power law."""
    down = learning_rate * alpha * kernel(pre, post, tau_minus, dt)
    up = learning_rate * w_0 ** (1 - mu) * kernel(post, pre, tau_plus, dt)
    return in_order(pre, post, weight, down, up, lambda w: w, lambda w: w**mu, 0.0, np.inf, first)


def triplet(
    pre, post, weight, *, tau_plus, tau_minus, tau_x, tau_y, a2_plus, a2_minus, a3_plus, a3_minus, w_min, w_max,
    pairing="all", dt, stronger=1.0,
):  # fmt: skip
    """The same for the triplet rule; depression at each presynaptic spike may be `stronger`."""
    slow_pre, slow_post = kernel(pre, pre, tau_x, dt, pairing), kernel(post, post, tau_y, dt, pairing)
    down = kernel(pre, post, tau_minus, dt, pairing) * (a2_minus + a3_minus * slow_pre) * stronger
    up = kernel(post, pre, tau_plus, dt, pairing) * (a2_plus + a3_plus * slow_post)
    return replay(pre, post, weight, down, up, w_min, w_max)


def inhibitory(pre, post, weight, *, tau, eta, target_rate, w_min, w_max, dt):
    """The same for the inhibitory rule; `target_rate` is in spikes per unit of `tau`."""
    down = eta * (2 * target_rate * tau - kernel(pre, post, tau, dt))
    return replay(pre, post, weight, down, eta * kernel(post, pre, tau, dt), w_min, w_max)


def homeostatic_triplet(pre, post, weight, *, tau, target_rate, dt, **parameters):
    """The same for triplets with homeostasis; `target_rate` is in spikes per unit of `tau`."""
    spikes = kernel(pre, post, tau, dt) + target_rate * tau * np.exp(-(np.asarray(pre) + 1) * dt / tau)
    stronger = (spikes / (target_rate * tau)) ** 2
    return triplet(pre, post, weight, dt=dt, stronger=stronger, **parameters)


def clopath(
    pre, voltage, weight, *, tau_x, tau_minus, tau_plus, theta_minus, theta_plus, a_ltd, a_ltp, w_min, w_max,
    tau_bar_bar=None, u_ref=None, late=0, dt,
):  # fmt: skip
    """The weight after every step, by the voltage at the end of each; averages are of the voltage `late` steps ago."""
    steps = np.arange(voltage.size)
    past = np.concatenate([np.full(late, theta_minus), voltage])[: voltage.size] - theta_minus

    def average(x, tau):  # before each step: x was held for a step each
        lag = (steps[:, None] - steps[None, :]) * dt
        lag = np.where(lag > 0, lag, np.inf)
        return (np.exp(-(lag - dt) / tau) - np.exp(-lag / tau)) @ x

    down = a_ltd * np.maximum(average(past, tau_minus), 0)
    if u_ref is not None:
        down *= average(past**2, tau_bar_bar) / u_ref**2
    trace = kernel(steps - 1, pre, tau_x, dt) + np.isin(steps - 1, pre)  # just after the step before
    held = trace * (1 - np.exp(-dt / tau_x))
    up = a_ltp * held * np.maximum(voltage - theta_plus, 0) * np.maximum(average(past, tau_plus), 0)
    weights = in_order(pre, steps, weight, down[pre], up, lambda w: 1, lambda w: 1, w_min, w_max, "depression")
    return weights[1]


def short_term(spikes, *, U, tau_rec, tau_facil, dt):
    """The gain of every spike, from one to the next."""
    u, x, gains = U, 1.0, []
    for lag in np.diff(spikes, append=np.inf) * dt:
        gains.append(u * x)
        x = 1 + (x - u * x - 1) * np.exp(-lag / tau_rec)
        u = U + u * (1 - U) * (np.exp(-lag / tau_facil) if tau_facil else 0)
    return np.array(gains)


def diehl_cook(pre, post, weight, *, tau, eta, target, w_min, w_max, mu, pairing, dt):
    """The same for the rule in which only postsynaptic spikes change weights."""
    up = eta * (kernel(post, pre, tau, dt, pairing) - target)
    return replay(pre, post, weight, np.zeros(len(pre)), up, w_min, w_max, mu_plus=mu)


def replay(pre, post, weight, down, up, w_min, w_max, mu_minus=0.0, mu_plus=0.0, first="depression"):
    """Make the changes of a weight that has a power of its distance to either bound."""
    u = lambda w: (w - w_min) / (w_max - w_min)  # noqa: E731
    softness = lambda w: u(w) ** mu_minus, lambda w: (1 - u(w)) ** mu_plus
    return in_order(pre, post, weight, down, up, *softness, w_min, w_max, first)


def in_order(pre, post, weight, down, up, softness_down, softness_up, w_min, w_max, first):
    """Make the changes, `-down[i]` at `pre[i]` and `up[i]` at `post[i]` times the softness, in the order of time."""
    down, up = dict(zip(pre, down, strict=True)), dict(zip(post, up, strict=True))

    def depress(w, t):
        return w - down.get(t, 0.0) * softness_down(w)

    def potentiate(w, t):
        return w + up.get(t, 0.0) * softness_up(w)

    steps, weights = np.union1d(pre, post), []
    for t in steps:
        for change in (depress, potentiate) if first == "depression" else (potentiate, depress):
            weight = min(max(change(weight, t), w_min), w_max)
        weights.append(weight)
    return steps, np.array(weights)
