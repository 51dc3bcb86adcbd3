"""Registries find their entries in the modules of their package and in plugins."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmupt.benchmarks import BENCHMARKS
from mmupt.cli import main
from mmupt.datasets import data_set, data_sets
from mmupt_data.catalog import DATA_SETS
from verl_ext.registry import GROUP, VARIABLE, PluginError, Registry, load_plugins


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path, whose modules are unloaded afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    load_plugins.cache_clear()
    yield tmp_path
    load_plugins.cache_clear()
    for name in sys.modules.keys() - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def colors_in(folder: Path, **modules: str) -> "Registry[object]":
    """Write a package with these modules and return its registry, `paints.COLORS`."""
    package = folder / "paints"
    package.mkdir()
    (package / "__init__.py").write_text(
        'from verl_ext.registry import Registry\nCOLORS = Registry("color", "paints")\n'
    )
    for name, text in modules.items():
        (package / f"{name}.py").write_text(text)
    from paints import COLORS  # type: ignore[import-not-found]

    assert isinstance(COLORS, Registry)
    return COLORS


RED = 'from paints import COLORS\n@COLORS.register\ndef red():\n    return "ff0000"\n'


def test_a_module_of_the_package_registers_its_entries_when_the_registry_is_read(folder: Path) -> None:
    colors = colors_in(folder, red=RED, no_color="x = 1\n")
    assert "paints.red" not in sys.modules
    assert list(colors) == ["red"] and colors.named("red")() == "ff0000"  # type: ignore[operator]


def test_an_entry_is_registered_under_its_name_and_only_once() -> None:
    colors: Registry[object] = Registry("color", "email.mime")
    blue = SimpleNamespace(name="blue")
    assert colors.register(blue) is blue and colors["blue"] is blue
    assert colors.register(blue) is blue, "the same entry twice is no conflict"
    with pytest.raises(ValueError, match="the color 'blue' is already registered by namespace"):
        colors.register(SimpleNamespace(name="blue"))


def test_an_unknown_name_is_refused_with_the_known_ones(folder: Path) -> None:
    with pytest.raises(ValueError, match="there is no color 'blue'; known: red"):
        colors_in(folder, red=RED).named("blue")


def test_a_plugin_is_named_by_the_environment_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colors = colors_in(folder)
    (folder / "my_colors.py").write_text(RED)
    monkeypatch.setenv(VARIABLE, " my_colors, ")
    assert list(colors) == ["red"]


def test_a_plugin_is_named_by_an_entry_point(folder: Path) -> None:
    colors = colors_in(folder)
    (folder / "my_colors.py").write_text(RED)
    installed = folder / "my_colors-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my_colors\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\nmine = my_colors\n")
    assert [point.value for point in entry_points(group=GROUP)] == ["my_colors"]
    assert list(colors) == ["red"]


def test_a_plugin_that_cannot_be_imported_is_named_at_every_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colors = colors_in(folder, red=RED)
    monkeypatch.setenv(VARIABLE, "no_such_module")
    for _ in range(2):
        with pytest.raises(PluginError, match=f"variable {VARIABLE} names 'no_such_module', which cannot be imported"):
            list(colors)


def test_an_error_in_a_plugin_is_reported_with_file_and_line_instead_of_a_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my_colors.py").write_text("\nundefined_name\n")
    monkeypatch.setenv(VARIABLE, "my_colors")
    for registry in DATA_SETS, BENCHMARKS:
        monkeypatch.setattr(registry, "_loaded", False)
    assert main(["data"]) == 1
    assert capsys.readouterr().err == (
        f"error: the variable {VARIABLE} names 'my_colors', which cannot be imported: NameError: name 'undefined_name' "
        f"is not defined ({folder / 'my_colors.py'}, line 2)\n"
    )


def test_benchmarks_are_listed_among_the_data_sets_under_the_same_names() -> None:
    assert set(data_sets()) == set(DATA_SETS) | set(BENCHMARKS)
    assert {"geometry3k", "images", "figures", "mathvista"} <= set(data_sets())
    assert all(benchmark.data is data_set(name) for name, benchmark in BENCHMARKS.items())


def test_scoring_loads_neither_the_datasets_library_nor_a_framework() -> None:
    heavy = {"datasets", "torch", "verl", "ray", "vllm"}
    code = f"import sys, mmupt.datasets as d; d.data_sets(); print(*{heavy} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""
