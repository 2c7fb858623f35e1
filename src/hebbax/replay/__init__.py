"""Rules applied to recorded spikes: `Replay`, in memory, and `files`, what `hebbax replay` does to files.

Time goes from spike to spike, on no grid. `connectivity.read` takes synapses from a file and `files.replay` applies a
rule to them, for spikes in files that may be larger than memory.
"""

from hebbax.replay.engine import Replay

__all__ = ["Replay"]
