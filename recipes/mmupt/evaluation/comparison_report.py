"""Comparisons of two models as people and programs read them: Markdown, JSON, a plot, and a page of examples.

What is compared, and how, is in `mmupt.evaluation.model_comparison`. Names, ids and responses are not trusted: in
Markdown they are code, on the page they are escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmupt.benchmarks import rule_version
from mmupt.evaluation.benchmark_scores import as_json
from mmupt.evaluation.model_comparison import LEVEL, RESAMPLES, SEED, Example, ModelComparison
from mmupt.evaluation.verdicts import JudgedFile, Verdict
from mmupt.reports.rendering import AFTER_COLOR, TEXT_COLOR, aligned, as_png, tidy
from mmupt_data.html_page import picture, shown

# Ids that a text names; the JSON has all of them.
NAMED = 5
NOTE = (
    "± is one standard error over questions (over problems where a line says so), of differences that of the paired "
    f"differences. The {LEVEL:.0%} interval is that of {RESAMPLES:,} paired resamples of the questions or problems "
    f'(percentiles, seed {SEED}), the same ones for all figures of a benchmark; "B not better" is the share of them '
    "without a difference above 0. It speaks of other questions of the same kind, not of another training or other "
    "samples of the same models; it is no probability that B is not better, and of many figures some are small by "
    "chance."
)


def render(comparisons: Sequence[ModelComparison]) -> str:
    """All comparisons as Markdown."""
    return "\n\n".join(("# Two models on the same questions", *map(_render, comparisons), NOTE)) + "\n"


def _render(one: ModelComparison) -> str:
    parts = [
        f"## {code(one.benchmark)}",
        f"- A: {_side(one.a)}\n- B: {_side(one.b)}",
        f"{len(one.questions):,} questions are compared. {_not_compared(one)}".strip(),
    ]
    if one.parameters:
        lines = [f"- {code(name)}: A {code(a)}, B {code(b)}" for name, (a, b) in one.parameters.items()]
        parts.append("The responses were made with other parameters:\n\n" + "\n".join(lines))
    rows = [("rule, figure", "A, %", "B, %", "B - A, points", f"{LEVEL:.0%} interval", "B not better, %")]
    for figure in one.figures:
        low, high = figure.interval
        unit = "" if figure.unit == "questions" else f", {figure.a.questions} problems"
        a, b, difference = (
            f"{100 * score.value:{sign}.2f} ± {100 * score.standard_error:.2f}"
            for score, sign in ((figure.a, ""), (figure.b, ""), (figure.difference, "+"))
        )
        interval = f"{100 * low:+.2f} to {100 * high:+.2f}"
        rows.append((f"{figure.name}{unit}", a, b, difference, interval, f"{100 * figure.not_better:.2f}"))
    versions = ", ".join(f"{rule} {version}" for rule, version in _versions(one).items())
    return "\n\n".join((*parts, aligned(rows), f"Versions of the rules: {versions}.", _changes(one)))


def _versions(one: ModelComparison) -> dict[str, int]:
    """The version of each rule by which both models are judged."""
    answered = next(verdict for verdict in one.a.verdicts if verdict.response.id == one.questions[0])
    return {rule: rule_version(one.benchmark, rule) for rule in answered.right}


def _changes(one: ModelComparison) -> str:
    found = one.changes
    in_part = f", {found.equal_in_part:,} both in part, equally often" if found.equal_in_part else ""
    return (
        f"By {found.figure}: {len(found.gained):,} questions gained, {len(found.lost):,} lost, {found.both_right:,} "
        f"both right, {found.both_wrong:,} both wrong{in_part}. If gains and losses were equally likely, so uneven a "
        f"count would have p = {found.p_value:.3g} (exact McNemar or sign test)."
    )


def _side(side: JudgedFile) -> str:
    return f"{code(side.parameters.get('model'))}, responses {code(side.file)}"


def _not_compared(one: ModelComparison) -> str:
    said = [
        f"{len(ids):,} {what}: {', '.join(map(code, ids[:NAMED]))}{', ...' if len(ids) > NAMED else ''}."
        for ids, what in (
            (one.only_a, "that A alone answers are left out"),
            (one.only_b, "that B alone answers are left out"),
            (one.incomplete, "with fewer responses than the others are left out"),
        )
        if ids
    ]
    said += [
        f"Responses of mode {mode} are not compared, as A has {a} a question and B {b}."
        for mode, (a, b) in one.other_numbers.items()
    ]
    return " ".join(said)


def code(value: Any) -> str:
    """A value as a code span on one line, which no sign of it can leave."""
    text = str(value).replace("`", "'").replace("|", "¦")
    return f"`{''.join(sign if sign.isprintable() else '?' for sign in text)[:200]}`"


def as_content(comparisons: Sequence[ModelComparison]) -> dict[str, Any]:
    """All comparisons as JSON holds them."""
    return {
        "resamples": RESAMPLES,
        "seed": SEED,
        "level": LEVEL,
        "comparisons": [
            {
                "benchmark": one.benchmark,
                "versions": _versions(one),
                **{
                    name: {"model": side.parameters.get("model"), "file": str(side.file)}
                    for name, side in (("a", one.a), ("b", one.b))
                },
                "parameters": {name: {"a": a, "b": b} for name, (a, b) in one.parameters.items()},
                "questions": one.questions,
                "only_a": one.only_a,
                "only_b": one.only_b,
                "incomplete": one.incomplete,
                "other_numbers": {mode: {"a": a, "b": b} for mode, (a, b) in one.other_numbers.items()},
                "figures": {
                    figure.name: {
                        "unit": figure.unit,
                        "a": as_json(figure.a),
                        "b": as_json(figure.b),
                        "difference": as_json(figure.difference),
                        "interval": figure.interval,
                        "not_better": figure.not_better,
                    }
                    for figure in one.figures
                },
                "changes": {
                    "figure": one.changes.figure,
                    "gained": one.changes.gained,
                    "lost": one.changes.lost,
                    "both_right": one.changes.both_right,
                    "both_wrong": one.changes.both_wrong,
                    "equal_in_part": one.changes.equal_in_part,
                    "p_value": one.changes.p_value,
                },
            }
            for one in comparisons
        ],
    }


def plot(comparisons: Sequence[ModelComparison]) -> bytes:
    """Draw the differences of all figures with their intervals as a PNG, a panel for each benchmark."""
    from matplotlib.figure import Figure

    lines = [len(one.figures) for one in comparisons]
    canvas = Figure(figsize=(9, 0.6 + sum(1.2 + 0.3 * count for count in lines)), dpi=160, layout="constrained")
    panels = canvas.subplots(len(comparisons), 1, sharex=True, squeeze=False, height_ratios=[3 + n for n in lines])
    for axes, one in zip(panels.flat, comparisons, strict=True):
        models = "\n".join(
            f"{name}: {side.parameters.get('model')}, {side.file}"[:140] for name, side in (("A", one.a), ("B", one.b))
        )
        axes.set_title(
            f"{one.benchmark}, {len(one.questions)} questions\n{models}",
            loc="left",
            fontsize=9,
            color=TEXT_COLOR,
            parse_math=False,
        )
        for row, figure in enumerate(one.figures):
            value, (low, high) = 100 * figure.difference.value, (100 * bound for bound in figure.interval)
            axes.plot([low, high], [row, row], color=AFTER_COLOR, linewidth=1.8, solid_capstyle="butt")
            axes.plot(value, row, color=AFTER_COLOR, marker="D", markersize=6)
        axes.axvline(0, color=TEXT_COLOR, linewidth=0.8)
        axes.set_yticks(range(len(one.figures)), [figure.name for figure in one.figures], parse_math=False)
        axes.set_ylim(len(one.figures) - 0.5, -0.5)
        tidy(axes)
    axes.set_xlabel(f"B - A, points, with {LEVEL:.0%} intervals over questions", color=TEXT_COLOR)
    return as_png(canvas)


def page(comparisons: Sequence[ModelComparison], images: Mapping[str, Mapping[str, Sequence[bytes]]]) -> str:
    """The questions that changed as HTML for `mmupt_data.html_page.write_page`.

    `images` are the encoded images of the examples by benchmark and id.
    """
    parts = []
    for one in comparisons:
        parts.append(f"<h2>{shown(one.benchmark)}</h2><p>A: {_html_side(one.a)}\nB: {_html_side(one.b)}</p>")
        found = one.changes
        for title, ids, examples in (
            ("Gained by B", found.gained, found.gained_examples),
            ("Lost by B", found.lost, found.lost_examples),
        ):
            parts.append(f"<h3>{title}, by {shown(found.figure)}: {len(examples)} of {len(ids)} questions</h3>")
            parts += [_section(example, images[one.benchmark].get(example.question.id, ())) for example in examples]
    return "\n".join(parts)


def _html_side(side: JudgedFile) -> str:
    return shown(f"{side.parameters.get('model')}, responses {side.file}")


def _section(example: Example, images: Sequence[bytes]) -> str:
    question = example.question
    choices = f"\nOptions: {'; '.join(question.choices)}" if question.choices else ""
    return (
        f"<section><header><small>{shown(question.id)}</small><br>{''.join(map(picture, images))}"
        f"<p>{shown(question.text + choices)}</p><p><b>Truth:</b> {shown(question.truth)}</p></header>"
        f"{_cell('A', example.a)}{_cell('B', example.b)}</section>"
    )


def _cell(name: str, verdict: Verdict) -> str:
    answer = "no answer" if verdict.answer is None else f"answer {verdict.answer}"
    said = ", ".join(f"{rule}: {'right' if right else 'wrong'}" for rule, right in verdict.right.items())
    return f"<div><b>{name}: {shown(answer)}</b> ({shown(said)})<p>{shown(verdict.response.response)}</p></div>"
