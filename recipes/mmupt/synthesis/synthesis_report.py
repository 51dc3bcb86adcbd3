"""Statistics of a synthesis: `report.json` for programs, `report.md` for people."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmupt.reports.tables import markdown_table
from mmupt.synthesis.candidates import JudgedCandidate
from mmupt_data.question_words import words
from verl_ext.files import write_atomically, write_json

# Number of bins of vote shares, from 0 to 1.
BINS = 10
LONGEST_NGRAM = 3
BAR_WIDTH = 40


def write_report(
    folder: Path, judged: Sequence[JudgedCandidate], filters: Sequence[str], rows: int, without_images: int
) -> str:
    """Write both files and return the text.

    `filters` are the names of the applied filters, in order; `rows` and `without_images` count rows with and without
    images.
    """
    facts = {"rows": rows, "rows_without_images": without_images, **facts_of(judged, filters)}
    text = render(facts)
    write_json(folder / "report.json", facts)
    write_atomically(folder / "report.md", f"{text}\n")
    return text


def facts_of(judged: Sequence[JudgedCandidate], filters: Sequence[str]) -> dict[str, Any]:
    """Compute the statistics of all candidates and of each strategy, as JSON values.

    `strategies` maps "all" and the name of each strategy to: `candidates`; `kept`; `dropped`, by filter in order;
    `vote_shares`, a histogram of the measured shares in tenths, the last including 1.0; `mean_vote_share`; and for the
    kept questions `distinct`, the share of different word n-grams for n from 1 to 3, and `distinct_questions`, the
    share of different texts. Null if there is nothing to average.
    """
    order = list(dict.fromkeys(one.candidate.strategy for one in judged))
    groups = {"all": list(judged)}
    groups |= {name: [one for one in judged if one.candidate.strategy == name] for name in order}
    return {"strategies": {name: _facts(group, filters) for name, group in groups.items()}}


def _facts(judged: Sequence[JudgedCandidate], filters: Sequence[str]) -> dict[str, Any]:
    kept = [words(one.candidate.question or "") for one in judged if one.kept]
    shares = [one.vote_share for one in judged if one.vote_share is not None]
    dropped = Counter(one.dropped_by for one in judged)
    bins = Counter(min(int(share * BINS), BINS - 1) for share in shares)
    return {
        "candidates": len(judged),
        "kept": len(kept),
        "dropped": {name: dropped[name] for name in filters},
        "vote_shares": [bins[index] for index in range(BINS)],
        "mean_vote_share": sum(shares) / len(shares) if shares else None,
        "distinct": {str(n): distinct(kept, n) for n in range(1, LONGEST_NGRAM + 1)},
        "distinct_questions": len(set(kept)) / len(kept) if kept else None,
    }


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Share of different n-grams among all n-grams (Li et al. 2016, arXiv 1510.03055); None if there are none.

    >>> distinct([["a", "b"], ["a", "b"]], 2)
    0.5
    """
    ngrams = [tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else None


def render(facts: dict[str, Any]) -> str:
    """Render the statistics as Markdown."""
    strategies: dict[str, dict[str, Any]] = facts["strategies"]
    everything = strategies["all"]
    lines = [
        ("responses", *(str(one["candidates"]) for one in strategies.values())),
        *(
            (f"dropped by {name}", *(str(one["dropped"][name]) for one in strategies.values()))
            for name in everything["dropped"]
        ),
        ("kept", *(_of(one["kept"], one["candidates"]) for one in strategies.values())),
        ("mean vote share", *(_number(one["mean_vote_share"]) for one in strategies.values())),
        *(
            (f"distinct-{n} of the kept", *(_number(one["distinct"][str(n)]) for one in strategies.values()))
            for n in range(1, LONGEST_NGRAM + 1)
        ),
        ("different texts of the kept", *(_number(one["distinct_questions"]) for one in strategies.values())),
    ]
    parts = [
        "# Questions that a model wrote",
        f"{everything['candidates']} responses about {facts['rows']} rows with images, {everything['kept']} kept; "
        f"{facts['rows_without_images']} rows have no image.",
        markdown_table([("", *strategies), *lines]),
    ]
    if total := sum(everything["vote_shares"]):
        parts.append(f"Vote shares of the {total} questions for which they were measured:")
        bars = []
        for index, count in enumerate(everything["vote_shares"]):
            bar = "#" * round(BAR_WIDTH * count / max(everything["vote_shares"]))
            bars.append(f"    {index / BINS:.1f} to {(index + 1) / BINS:.1f}  {count:6d}  {bar}".rstrip())
        parts.append("\n".join(bars))
    return "\n\n".join(parts)


def _of(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.1f} %)" if whole else str(part)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
