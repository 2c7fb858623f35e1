"""hebbax: event-driven synaptic plasticity for JAX."""

from importlib.metadata import version as _version

from hebbax import delays, inplace, record, sharding
from hebbax._core.fence import fence
from hebbax._core.lowering import Backend, backends
from hebbax._core.unitless import (
    propagate_csr_on_binary_post_p,
    propagate_csr_on_binary_pre_p,
    update_csr_on_binary_post_p,
    update_csr_on_binary_pre_p,
)
from hebbax._cpu import get_num_threads, set_num_threads
from hebbax.csc import update_csc_on_binary_post, update_csc_on_binary_pre
from hebbax.errors import ShapeError
from hebbax.operators import (
    propagate_csr_on_binary_post,
    propagate_csr_on_binary_pre,
    update_csr_on_binary_post,
    update_csr_on_binary_pre,
)
from hebbax.rewiring import Rewired, rewire, rewire_within
from hebbax.rules import (
    ClopathSTDP,
    DiehlCookSTDP,
    HomeostaticTripletSTDP,
    InhibitorySTDP,
    PairSTDP,
    PowerLawSTDP,
    RewardSTDP,
    ShortTermPlasticity,
    SynapticScaling,
    TripletSTDP,
)
from hebbax.synapses import Synapses

__version__ = _version("hebbax")

__all__ = [
    "Backend",
    "ClopathSTDP",
    "DiehlCookSTDP",
    "HomeostaticTripletSTDP",
    "InhibitorySTDP",
    "PairSTDP",
    "PowerLawSTDP",
    "RewardSTDP",
    "Rewired",
    "ShapeError",
    "ShortTermPlasticity",
    "Synapses",
    "SynapticScaling",
    "TripletSTDP",
    "backends",
    "delays",
    "fence",
    "get_num_threads",
    "inplace",
    "propagate_csr_on_binary_post",
    "propagate_csr_on_binary_post_p",
    "propagate_csr_on_binary_pre",
    "propagate_csr_on_binary_pre_p",
    "record",
    "rewire",
    "rewire_within",
    "set_num_threads",
    "sharding",
    "update_csc_on_binary_post",
    "update_csc_on_binary_pre",
    "update_csr_on_binary_post",
    "update_csr_on_binary_post_p",
    "update_csr_on_binary_pre",
    "update_csr_on_binary_pre_p",
]
