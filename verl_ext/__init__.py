"""Extension of veRL for label-free reinforcement learning by majority vote."""
