"""Extension of veRL for label-free reinforcement learning by majority vote."""

__version__ = "0.1.0"
