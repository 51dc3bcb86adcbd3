"""Counts in messages. Pure."""


def pluralize(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun; `many` is the plural if it is not `one` plus s.

    >>> pluralize(1, "row"), pluralize(1200, "row"), pluralize(1, "row is", "rows are")
    ('1 row', '1,200 rows', '1 row is')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
