"""Short-term plasticity: what a presynaptic spike releases, by the spikes before it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import brainunit as u
import jax
import jax.numpy as jnp

from hebbax._core.pytree import pytree
from hebbax._core.sides import Side
from hebbax._core.unitless import spikes_of
from hebbax.operators import Plain, WithUnit, in_unit
from hebbax.rules._parameters import PRE, check, check_range, factors
from hebbax.rules._traces import check_state, decay, zeros
from hebbax.synapses import Synapses


class ShortTermState(NamedTuple):
    """Dimensionless numbers of the presynaptic neurons; both are 0 where there was no spike for long."""

    spent: Any  # (n_pre,), resources that were released and are not back yet: 1 - x
    u: Any  # (n_pre,), what the last spike has left of its share of the resources, u


@pytree()
@dataclasses.dataclass(frozen=True)
class ShortTermPlasticity:
    r"""Short-term depression and facilitation after Tsodyks, Pawelzik & Markram (1998): a gain for each spike.

    It changes no weights: `propagate_on_pre` takes the gain.

    Parameters
    ----------
    U : number or Array, scalar or shape (n_pre, 1)
        Share of the available resources that a spike after long silence releases, 0 to 1.
    tau_rec : Quantity, scalar or shape (n_pre, 1)
        Time constant with which resources recover, one for all or one per presynaptic neuron.
    tau_facil : Quantity, scalar or shape (n_pre, 1)
        Time constant of facilitation; 0 where there is none.

    Raises
    ------
    ValueError, TypeError
        A parameter is out of range; the message names it.
    hebbax.errors.ShapeError
        A parameter has another shape, then or in `step` (a ValueError and an AssertionError).
    brainunit.UnitMismatchError
        A parameter's dimension is not the one that it should have.

    Notes
    -----
    Between spikes the available resources :math:`x` recover to 1 and :math:`u` decays to 0; a spike first raises
    :math:`u`, and then releases this share of the resources:

    .. math::

        \frac{dx}{dt} = \frac{1 - x}{\tau_{rec}}, \quad \frac{du}{dt} = -\frac{u}{\tau_{facil}}, \quad
        \text{spike: } & u \leftarrow u + U (1 - u), \quad g = u x, \quad x \leftarrow x - g

    in closed form, for any length of a step. Without facilitation :math:`u` is :math:`U` at every spike. At regular
    spikes of rate :math:`r` the gain tends to :math:`u_\infty x_\infty` with

    .. math::

        u_\infty = \frac{U}{1 - (1 - U) e^{-1 / r \tau_{facil}}}, \quad
        x_\infty = \frac{1 - e^{-1 / r \tau_{rec}}}{1 - (1 - u_\infty) e^{-1 / r \tau_{rec}}}

    There are other variants: with :math:`u` raised after the release, or with a decay of :math:`u` to :math:`U`, where
    a spike raises it by :math:`U (1 - u)` too (Mongillo, Barak & Tsodyks 2008). This one is NEST's `tsodyks2_synapse`,
    started with `u` equal to `U`.

    References
    ----------
    M. Tsodyks, K. Pawelzik & H. Markram (1998), Neural networks with dynamic synapses, Neural Computation 10:821,
    doi:10.1162/089976698300017502.
    M. Tsodyks & H. Markram (1997), The neural code between neocortical pyramidal neurons depends on neurotransmitter
    release probability, PNAS 94:719, doi:10.1073/pnas.94.2.719.

    Examples
    --------
    >>> import brainunit as u, hebbax, jax.numpy as jnp
    >>> depressing = hebbax.ShortTermPlasticity(U=0.5, tau_rec=800.0 * u.ms, tau_facil=0.0 * u.ms)
    >>> synapses, weight = hebbax.Synapses.from_dense(jnp.array([[2.0]]) * u.nS)
    >>> state, spike = depressing.init(synapses), jnp.array([True])
    >>> for _ in range(3):  # at 50 Hz
    ...     gain, state = depressing.step(state, spike, 20.0 * u.ms)
    ...     current = synapses.propagate_on_pre(weight, spike, gain=gain)
    ...     print(f"{current.mantissa[0]:.3f}")
    1.000
    0.512
    0.275
    """

    U: Any
    tau_rec: Any
    tau_facil: Any

    sides: ClassVar[dict[str, tuple[Side, ...]]] = {"U": PRE, "tau_rec": PRE, "tau_facil": PRE}

    def __post_init__(self) -> None:
        check(self, positive=("tau_rec",), not_negative=("tau_facil",), weights=("U",))
        check_range(self, ("U",), lambda x: (x >= 0) & (x <= 1), "a value from 0 to 1")
        in_unit("U", self.U, u.UNITLESS)
        in_unit("tau_facil", self.tau_facil, u.get_unit(self.tau_rec))

    def init(self, synapses: Synapses) -> ShortTermState:
        """Return the state of neurons that have not spiked yet."""
        return ShortTermState(*zeros(synapses.n_pre, synapses.n_pre))

    def step(self, state: ShortTermState, pre_spike: Plain, dt: WithUnit) -> tuple[jax.Array, ShortTermState]:
        """Return the gain of spikes at the end of a step of length `dt`, and the state after those that there are.

        Parameters
        ----------
        state : ShortTermState
            From `init` or the step before.
        pre_spike : Array, shape (n_pre,), bool or real
            Whether each presynaptic neuron spikes.
        dt : Quantity, scalar
            Length of the step, as in `PairSTDP.step`.

        Returns
        -------
        gain : Array, shape (n_pre,)
            What each neuron releases if it spikes, for `propagate_on_pre`.
        state : ShortTermState
        """
        dtype = check_state(state, ShortTermState)
        neurons = jax.ShapeDtypeStruct((*state.u.shape, 1), dtype)  # as many as parameters may be for
        spike = spikes_of("pre_spike", pre_spike, state.u.size)
        spent = decay(self, "tau_rec", dt, neurons, "pre", dtype).of(state.spent)
        left = decay(self, "tau_facil", dt, neurons, "pre", dtype).of(state.u)
        share = left + factors(self, "U", neurons, u.UNITLESS, dtype).gain("pre") * (1.0 - left)
        gain = share * (1.0 - spent)
        return gain, ShortTermState(jnp.where(spike, spent + gain, spent), jnp.where(spike, share, left))
