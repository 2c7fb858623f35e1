"""The machinery between the public functions and the backends: arrays only, no units."""
