"""The documentation site builds without warnings, is complete and loads nothing from the network; its notebook runs."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import config_reference
import field_lists
import nbclient
import nbformat
import notebook_page
import pytest
import repository_links
from omegaconf import DictConfig, OmegaConf

from mmupt.compose import OPEN_KEYS, load_recipe
from mmupt.key_sources import documented_keys
from mmupt.recipe_files import CONFIG_FOLDER, GROUPS

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "votes_by_hand.ipynb"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the site, and the output of the build."""
    site = tmp_path_factory.mktemp("site")
    python_path = os.pathsep.join(str(ROOT / name) for name in (".", "recipes", "data"))
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": python_path, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return site, result.stdout + result.stderr


class Page(HTMLParser):
    """Links and anchors of an HTML page, and the files that a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if "src" in values or (tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload", "preconnect")):
            self.loaded.append(values.get("src") or values["href"])
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def pages(built: tuple[Path, str]) -> dict[Path, Page]:
    return {file: Page(file.read_text()) for file in built[0].rglob("*.html")}


def test_the_site_builds_without_a_warning(built: tuple[Path, str]) -> None:
    site, output = built
    assert "WARNING" not in output and "ERROR" not in output
    for name in ("index", "tutorial", "migration", "faq", "votes_by_hand", "reference/commands", "architecture"):
        assert (site / f"{name}.html").is_file(), name


def test_every_page_of_the_docs_is_in_the_navigation(built: tuple[Path, str], pages: dict[Path, Page]) -> None:
    site, _ = built
    home = {(site / urlsplit(link).path).resolve() for link in pages[site / "index.html"].links}
    assert {site / f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= home


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        # 404.html has links relative to the server's root.
        for link in () if file.name == "404.html" else page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            anchor = unquote(address.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{file.name}: {link}")
    assert not broken, "\n".join(broken[:20])


def test_a_browser_loads_nothing_from_elsewhere(built: tuple[Path, str], pages: dict[Path, Page]) -> None:
    elsewhere = {url for page in pages.values() for url in page.loaded if urlsplit(url).scheme not in ("", "data")}
    assert elsewhere == set()
    styles = "".join(file.read_text() for file in built[0].rglob("*.css"))
    assert not re.search(r"(?:@import|url\()\s*[\"']?https?:", styles)


def test_generating_the_site_imports_nothing_large() -> None:
    script = f"""
import sys
sys.path.insert(0, {str(ROOT / "scripts/docs_site")!r})
import command_reference, config_reference
config_reference.pages(), command_reference.page()
print(sorted({{"torch", "vllm", "ray", "verl", "transformers"}} & sys.modules.keys()))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def _keys(node: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in node:
        child = node._get_node(name)
        keys.append(f"{prefix}{name}")
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
            keys += _keys(child, f"{prefix}{name}.")
    return [key for key in keys if key.partition(".")[0] != "defaults"]


@pytest.mark.parametrize(
    "file",
    [CONFIG_FOLDER / "base.yaml", *(file for group in GROUPS for file in (CONFIG_FOLDER / group).rglob("*.yaml"))],
)
def test_every_key_is_listed_with_the_comment_of_its_file(file: Path) -> None:
    loaded = OmegaConf.load(file)
    assert isinstance(loaded, DictConfig)
    listed = {key.name: key for key in documented_keys(file)}
    blocks = {key for key in _keys(loaded) for other in _keys(loaded) if other.startswith(f"{key}.")}
    assert set(_keys(loaded)) - blocks <= listed.keys()
    lines = file.read_text().splitlines()
    for key in listed.values():
        first_words = " ".join(key.comment.split()[:4])
        assert any(first_words in line for line in lines if "#" in line) or not key.comment


def test_a_comment_is_text_whatever_it_contains(tmp_path: Path) -> None:
    file = tmp_path / "config" / "some.yaml"
    file.parent.mkdir()
    file.write_text("# Header.\na:\n  # Put it in \\boxed{}, <b> or a|b: `x_y` *z*.\n  b: [1, '|']\n")
    row = config_reference._page("Some", "Summary.", [file]).splitlines()[-1]
    assert row.startswith("| <span id=\"a.b\"></span>`a.b` | `[1, '\\|']` | Put it in ")
    assert not set("<>{}*`\\") & set(row.split(" | ")[-1])


def test_links_to_the_repository_become_links_within_the_site() -> None:
    text = "[a](../README.md#train) [b](../verl_ext/votes) [c](view.png) [d](https://e.f) [h](#here)\n\n    [i](j.md)\n"
    assert repository_links.for_the_site("docs/vote.md", text) == (
        "[a](index.md#train) [b](source/verl_ext/votes.md) [c](view.png) [d](https://e.f) [h](#here)\n\n    [i](j.md)\n"
    )
    inner = repository_links.for_the_site(
        "recipes/mmupt/README.md", "[base](config/base.yaml), [docs](../../docs/vote.md)"
    )
    assert inner == "[base](source/recipes/mmupt/config/base.yaml.md), [docs](vote.md)"


def test_fields_that_a_docstring_explains_are_listed() -> None:
    docstring = "A vote.\n\nlabel: the answer,\n    or None.\nratio: a share.\n\nNote: no field."
    assert field_lists.with_heading(docstring, ["label", "ratio"]) == (
        "A vote.\n\nAttributes:\n    label: the answer,\n        or None.\n    ratio: a share.\n\nNote: no field."
    )


def test_the_notebook_runs_and_prints_its_saved_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    saved, run = (nbformat.read(NOTEBOOK, as_version=4) for _ in range(2))
    run.cells.append(nbformat.v4.new_code_cell("import sys\nprint('torch' in sys.modules)"))
    python_path = os.pathsep.join(str(ROOT / name) for name in (".", "recipes", "data"))
    environment = {**os.environ, "PYTHONPATH": python_path}
    nbclient.NotebookClient(run, timeout=120, kernel_name="python3").execute(env=environment)

    def printed(cell: nbformat.NotebookNode) -> str:
        # The output of a cell may be split into several streams.
        streams = [output for output in cell.outputs if output.output_type == "stream"]
        return "".join(output.text for output in streams if output.name == "stdout")

    *cells, last = [cell for cell in run.cells if cell.cell_type == "code"]
    assert printed(last) == "False\n"
    for cell, before in zip(cells, [cell for cell in saved.cells if cell.cell_type == "code"], strict=True):
        assert printed(cell) == printed(before), "run .venv/bin/jupyter execute --inplace docs/votes_by_hand.ipynb"
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    page = notebook_page.page(NOTEBOOK)
    assert page.startswith("# Voting by hand") and "data:image/png;base64," in page


def test_an_output_that_cannot_be_shown_is_an_error_that_names_the_notebook(tmp_path: Path) -> None:
    output = {"output_type": "display_data", "data": {"text/html": "<b>1</b>"}}
    cell = {"cell_type": "code", "source": ["1"], "outputs": [output]}
    (notebook := tmp_path / "votes.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ValueError, match=r"votes\.ipynb: an output of type display_data cannot be shown"):
        notebook_page.page(notebook)


def test_the_keys_of_the_migration_page_exist() -> None:
    config, _ = load_recipe("mmupt_mathvista")
    missing = []
    for line in (ROOT / "docs" / "migration.md").read_text().splitlines():
        cells = re.split(r" ?(?<!\\)\| ?", line)
        if len(cells) != 5:
            continue
        for key in re.findall(r"`([a-z][\w.]*\.[\w.]+)`", cells[2]):
            parent, _, name = key.rpartition(".")
            block = OmegaConf.select(config, parent)
            is_open = any(key.startswith(open_key) for open_key in OPEN_KEYS)
            if not is_open and not (isinstance(block, DictConfig) and name in block):
                missing.append(key)
    assert not missing
