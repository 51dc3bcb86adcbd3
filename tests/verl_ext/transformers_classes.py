"""Undo veRL's patches of transformers classes after a test."""

import importlib
from collections.abc import Iterable

import pytest

NAMES = ("forward", "fast_pos_embed_interpolate")


def restore_after(monkeypatch: pytest.MonkeyPatch, models: Iterable[type]) -> None:
    """Restore the methods that veRL replaces, of all classes in the modules of these models."""
    for module in {importlib.import_module(model.__module__) for model in models}:
        for cls in vars(module).values():
            if isinstance(cls, type) and cls.__module__ == module.__name__:
                for name in NAMES:
                    if name in vars(cls):
                        monkeypatch.setattr(cls, name, vars(cls)[name])
