"""Links between files of the repository, rewritten from GitHub's paths to the site's. Pure functions.

Pages link to each other and to source files by relative paths, which GitHub follows. On the site, pages of the
repository outside docs/ have the addresses in `PAGES`, and every linked source file or folder gets a page that shows
it, so that the site is complete without a network.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

# Pages outside docs/: path in the repository -> path on the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "recipes/mmupt/README.md": "recipes.md",
    "examples/cluster.md": "several_machines.md",
}
# The folder of the pages that show source files.
SOURCE = "source"

# A link or image; the target may have an anchor.
_LINK = re.compile(r"(?P<text>!?\[[^]]*\])\((?P<target>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
_CODE_BLOCK = re.compile(r"^```.*?^```|^    [^\n]*$", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml", ".json": "json", ".md": "markdown"}


def site_path(path: str) -> str:
    """Return the path on the site of a file or folder of the repository.

    Args:
        path: relative to the top of the repository, with slashes.
    """
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    return f"{SOURCE}/{path}.md"


def links(page: str, text: str) -> Iterator[str]:
    """Yield the files and folders of the repository that a page links to; they need not exist.

    Args:
        page: the page's path in the repository.
        text: its Markdown.
    """
    for part, is_code in _parts(text):
        for link in () if is_code else _LINK.finditer(part):
            if (target := _resolved(page, link["target"])) is not None:
                yield target


def for_the_site(page: str, text: str) -> str:
    """Return the Markdown of a page with links for the site.

    Args:
        page: the page's path in the repository.
        text: its Markdown.
    """

    def rewritten(link: re.Match[str]) -> str:
        target = _resolved(page, link["target"])
        if target is None:
            return link[0]
        here = PurePosixPath(site_path(page)).parent
        return f"{link['text']}({os.path.relpath(site_path(target), here)}{link['anchor'] or ''})"

    return "".join(part if is_code else _LINK.sub(rewritten, part) for part, is_code in _parts(text))


def source_page(root: Path, path: str, tracked: Collection[str]) -> str:
    """Return a page that shows a source file, or lists the files of a folder.

    Args:
        root: the top of the repository.
        path: the file or folder in it.
        tracked: all files of the repository.
    """
    title = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
    if (root / path).is_dir():
        names = sorted(name for name in tracked if name.startswith(f"{path}/"))
        return title + "\n".join(f"- [{name.removeprefix(path + '/')}](/{name})" for name in names) + "\n"
    text = (root / path).read_text()
    fence = "`" * (max(map(len, re.findall("`+", text)), default=2) + 3)
    return f"{title}{fence}{_LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{fence}\n"


def shown_sources(root: Path, pages: dict[str, str], tracked: Collection[str]) -> set[str]:
    """Return the source files and folders that need a page: linked files and folders, and all files of linked folders.

    Args:
        root: the top of the repository.
        pages: Markdown by path in the repository.
        tracked: all files of the repository.
    """
    linked = {target for page, text in pages.items() for target in links(page, text)}
    shown = {path for path in linked if site_path(path).startswith(f"{SOURCE}/") and (root / path).exists()}
    folders = tuple(f"{path}/" for path in shown if (root / path).is_dir())
    return shown | {path for path in tracked if path.startswith(folders)}


def _resolved(page: str, target: str) -> str | None:
    """Return the file that a relative link leads to; None for links to other sites or within the page.

    A target that starts with a slash is relative to the top of the repository.
    """
    if not target or ":" in target:
        return None
    if target.startswith("/"):
        return target[1:]
    return os.path.normpath(os.path.join(os.path.dirname(page), target))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Split a text into parts and yield each with whether it is a code block."""
    end = 0
    for code in _CODE_BLOCK.finditer(text):
        yield text[end : code.start()], False
        yield code[0], True
        end = code.end()
    yield text[end:], False
