"""Sources and licences of the rows of data files."""

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
# The hub's licence identifiers (https://huggingface.co/docs/hub/repositories-licenses) that our sources use.
HUB_LICENCES = frozenset(
    ("apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
)


@dataclass(frozen=True)
class RowSource:
    """Rows of one data set, with the same origin and licence.

    data_set: `data_source` of the rows.
    repository: repository on the hub; None if it is unknown or the rows come from elsewhere.
    revision: revision of the repository; None if unknown.
    origin: description of the origin for readers.
    licence: licence of the rows; None if unknown.
    model: model that wrote the questions; None if no model did.
    rows: number of rows.
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
        """The hub's identifier of the licence, "unknown" without a licence."""
        return "unknown" if self.licence is None else hub_licence(self.licence.name)


def row_sources(files: Iterable[Path]) -> list[RowSource]:
    """Return the sources of the rows of data files, sorted by data set; unknown for malformed rows and columns.

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
                # Rows without a data source get the name of the file with its folder, which may be private.
                Path(file).stem if data_set in (None, file_name(file)) else data_set,
                origin.get("source"),
                origin.get("revision"),
                licence if isinstance(licence, str) else None,
                synthesis.get("model"),
            ] += 1
    sources = (_source(*key, rows=rows) for key, rows in counted.items())
    return sorted(sources, key=lambda source: (source.data_set, -source.rows))


def render(sources: Sequence[RowSource]) -> str:
    """Return the sources as a Markdown table."""
    head = ("data set", "rows", "from", "revision", "licence", "stated in")
    rows = [
        (
            source.data_set,
            str(source.rows),
            source.origin,
            (source.revision or "")[:12],
            source.licence.name if source.licence else "not known",
            source.licence.stated_in if source.licence else "",
        )
        for source in sources
    ]
    return markdown_table([head, *rows])


def warnings(sources: Iterable[RowSource]) -> list[str]:
    """Return licence problems to know before publishing these rows, or a model that was trained on them."""
    problems = []
    for source in sources:
        if source.licence is None:
            problems.append(f"the licence of {pluralize(source.rows, 'row')} of {source.data_set} is not known")
        elif NON_COMMERCIAL.search(source.licence.name):
            rows = f"{pluralize(source.rows, 'row')} of {source.data_set}"
            problems.append(f"{rows}: not for commercial use ({source.licence.name})")
    return problems


def hub_licence(name: str) -> str:
    """Return the hub's identifier of a licence as its source names it, "other" if it is not in HUB_LICENCES.

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
    """Return the data set of the catalog that rows belong to, by its repository, or for a local copy by its name."""
    hub = [entry for entry in data_sets().values() if isinstance(entry, HubDataset)]
    by_path = next((entry for entry in hub if entry.path == source), None)
    return by_path or next((entry for entry in hub if entry.name == data_set), None)


def _licence(name: str | None, known: HubDataset | None) -> Licence | None:
    """Return the licence of rows; the catalog's if they were prepared before the catalog had one."""
    catalogued = known.licence if known else None
    if name is None or (catalogued and catalogued.name == name):
        return catalogued
    return Licence(name, "the rows themselves")
