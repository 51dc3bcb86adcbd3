"""MkDocs hooks of the site: they add pages from outside docs/ and generated pages, and rewrite links."""

import re
import subprocess
from pathlib import Path
from typing import Any

import command_reference
import config_reference
import notebook_page
import repository_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Folder of the pages in the navigation that are generated from the docstrings of packages and modules.
PYTHON = "reference/python/"
SOURCES = {"verl_ext": "verl_ext", "mmupt": "recipes/mmupt", "mmupt_data": "data/mmupt_data"}
# Mark that tells what commands need (tests/test_doc_commands.py).
NEEDS = re.compile(r"^<!-- needs: (.*?) -->$", re.MULTILINE)
# Fence of a block with a file name, "```python my_file.py", of which GitHub shows only the code.
FILE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)
MERMAID = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append pages of docs/ that are missing from the navigation to its guides."""
    named = set(_named(config.nav))
    pages = sorted(file.name for file in (ROOT / "docs").glob("*.md") if file.name not in named)
    guides = next(section["Guides"] for section in config.nav or () if "Guides" in section)
    guides.extend(pages)
    return config


def _named(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav or ()
    return [name for value in values for name in _named(value)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    tracked = _tracked()
    markdown = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    markdown |= {path: (ROOT / path).read_text() for path in repository_links.PAGES}
    for path in repository_links.PAGES:
        _add(files, config, repository_links.site_path(path), markdown[path])
    for notebook in (ROOT / "docs").glob("*.ipynb"):
        _add(files, config, f"{notebook.stem}.md", notebook_page.page(notebook))
    for path in sorted(repository_links.shown_sources(ROOT, markdown, tracked)):
        _add(files, config, repository_links.site_path(path), repository_links.source_page(ROOT, path, tracked))
    for place, text in config_reference.pages().items():
        _add(files, config, place, text)
    _add(files, config, "reference/commands.md", command_reference.page())
    for place in _named(config.nav):
        if place.startswith(PYTHON):
            _add(files, config, place, _python_page(place.removeprefix(PYTHON).removesuffix(".md")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links, drawings and marks of a page, which are written for GitHub, for the site."""
    places = {site: path for path, site in repository_links.PAGES.items()}
    source = places.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    markdown = repository_links.for_the_site(source, markdown)
    markdown = FILE.sub(r'```\1 title="\2"', MERMAID.sub(_table_of_arrows, markdown))
    return NEEDS.sub(r"*Needs \1.*", markdown)


def _table_of_arrows(drawing: re.Match[str]) -> str:
    """Return a Mermaid flowchart as a table, because drawing it would take a script of several megabytes."""
    names = dict(re.findall(r"^ *(\w+)\[(\w+)\]$", drawing[1], re.MULTILINE))
    imports: dict[str, list[str]] = {name: [] for name in names}
    for importer, imported in re.findall(r"^ *(\w+) --> (\w+)$", drawing[1], re.MULTILINE):
        imports[importer].append(imported)
    rows = [f"| `{name}` | {', '.join(f'`{target}`' for target in targets)} |" for name, targets in imports.items()]
    return "\n".join(["| subpackage | imports |", "|---|---|", *rows])


def _python_page(name: str) -> str:
    """Return the page of a module, or of a package with a section for each of its public modules."""
    top, *rest = name.split(".")
    folder = ROOT.joinpath(SOURCES[top], *rest)
    if not folder.is_dir():
        return f"# {name}\n\n::: {name}\n"
    modules = [f"{name}.{file.stem}" for file in sorted(folder.glob("*.py")) if not file.stem.startswith("_")]
    sections = [f"## {module}\n\n::: {module}\n    options: {{heading_level: 3}}\n" for module in modules]
    return f"# {name}\n\n::: {name}\n    options: {{members: false}}\n\n" + "\n".join(sections)


def _add(files: Files, config: MkDocsConfig, place: str, content: str) -> None:
    files.append(File.generated(config, place, content=content))


def _tracked() -> frozenset[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(listed.stdout.splitlines())
