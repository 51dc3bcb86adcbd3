"""Where the rows of data files come from, and under which licences."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmupt.datasets import data_sets
from mmupt.publishing import is_path, public_name
from mmupt.reports.tables import markdown_table
from mmupt_data.hub import HubDataset, Licence
from mmupt_data.prepare import NON_COMMERCIAL
from verl_ext.counts import pluralize
from verl_ext.datasets.parquet_reader import MalformedRow, file_name, read_rows

COLUMNS = ("data_source", "provenance", "licence", "synthesis")
# Of the hub's identifiers (https://huggingface.co/docs/hub/repositories-licenses), those that our sources use.
HUB_LICENCES = frozenset(
    ("apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
)


@dataclass(frozen=True)
class RowSource:
    """Rows of one data set, of one revision and under one licence.

    data_set: their `data_source`.
    repository: on the hub; None where it is not known, or the rows come from elsewhere.
    revision: of the repository; None if unknown.
    origin: in words, for people.
    licence: None if none is known.
    model: which wrote the questions; None where no model did.
    rows: how many.
    """

    data_set: str
    repository: str | None
    revision: str | None
    origin: str
    licence: Licence | None
    model: str | None
    rows: int

    @property
    def hub_licence(self) -> str:
        """Its licence as a card's metadata has it."""
        return "unknown" if self.licence is None else hub_licence(self.licence.name)


def row_sources(files: Iterable[Path]) -> list[RowSource]:
    """The sources of the rows of data files by name; unknown for rows that cannot be read and columns of another form.

    Raises:
        ValueError: a file is missing or cannot be read.
    """
    counted: Counter[tuple[str, str | None, str | None, str | None, str | None]] = Counter()
    for file in files:
        for row in read_rows(file, COLUMNS):
            known: dict[str, Any] = {} if isinstance(row, MalformedRow) else row
            origin, synthesis = known.get("provenance") or {}, known.get("synthesis") or {}
            licence, data_set = known.get("licence"), known.get("data_source")
            counted[
                # In place of a data source, rows have the name of the file and of its folder, which may tell too much.
                Path(file).stem if data_set in (None, file_name(file)) else data_set,
                origin.get("source"),
                origin.get("revision"),
                licence if isinstance(licence, str) else None,
                synthesis.get("model"),
            ] += 1
    sources = (_source(*key, rows=rows) for key, rows in counted.items())
    return sorted(sources, key=lambda one: (one.data_set, -one.rows))


def render(sources: Sequence[RowSource]) -> str:
    """The sources as a Markdown table."""
    head = ("data set", "rows", "from", "revision", "licence", "stated in")
    rows = [
        (
            one.data_set,
            str(one.rows),
            one.origin,
            (one.revision or "")[:12],
            one.licence.name if one.licence else "not known",
            one.licence.stated_in if one.licence else "",
        )
        for one in sources
    ]
    return markdown_table([head, *rows])


def warnings(sources: Iterable[RowSource]) -> list[str]:
    """What to know before these rows, or what was trained on them, are given to others; empty if nothing."""
    found = []
    for one in sources:
        if one.licence is None:
            found.append(f"the licence of {pluralize(one.rows, 'row')} of {one.data_set} is not known")
        elif NON_COMMERCIAL.search(one.licence.name):
            rows = f"{pluralize(one.rows, 'row')} of {one.data_set}"
            found.append(f"{rows}: not for commercial use ({one.licence.name})")
    return found


def hub_licence(name: str) -> str:
    """A licence in the words of its source as the hub's identifier, "other" if it is none of HUB_LICENCES.

    >>> hub_licence("CC BY-NC 4.0"), hub_licence("ask the authors")
    ('cc-by-nc-4.0', 'other')
    """
    identifier = re.sub(r"[\s-]+", "-", name.partition(",")[0].strip().lower())
    return identifier if identifier in HUB_LICENCES else "other"


def _source(
    data_set: str, source: str | None, revision: str | None, licence: str | None, model: str | None, *, rows: int
) -> RowSource:
    known = _catalogued(data_set, source)
    repository = source if source is not None and not is_path(source) else known.path if known and source else None
    if source is None:
        is_ours = known is None and data_set in data_sets()
        origin = "made by a program" if is_ours and model is None else "unknown"
    elif repository is None:
        origin = f"{public_name(source)}, a local folder"
    else:
        origin = repository if source == repository else f"a copy of {repository}"
    if model is not None:
        origin = f"written by {public_name(model)} about images of: {origin}"
    return RowSource(data_set, repository, revision, origin, _licence(licence, known), model, rows)


def _catalogued(data_set: str, source: str | None) -> HubDataset | None:
    """The data set of the catalog that rows are of: by their repository, else, for a local copy, by their name."""
    hub = [one for one in data_sets().values() if isinstance(one, HubDataset)]
    by_path = next((one for one in hub if one.path == source), None)
    return by_path or next((one for one in hub if one.name == data_set), None)


def _licence(name: str | None, known: HubDataset | None) -> Licence | None:
    """That of the rows, or, where they were prepared before the catalog knew it, that of the catalog."""
    catalogued = known.licence if known else None
    if name is None or (catalogued and catalogued.name == name):
        return catalogued
    return Licence(name, "the rows themselves")
