"""Shared by all tests: veRL runs on its CPU platform, and nothing asks the network for a model."""

import os

os.environ["VERL_PLATFORM"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
