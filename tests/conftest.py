"""Shared by all tests: veRL runs on its CPU platform, and nothing asks the network for a model."""

import os

from hypothesis import settings

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
# Not safe for process groups in several threads of one process, which only tests have.
os.environ["TORCH_FR_BUFFER_SIZE"] = "0"

# How long an example takes is a matter of what else the machine does.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
