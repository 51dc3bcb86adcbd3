"""Formats comparisons of two models as Markdown, JSON, a plot, and a page of the questions gained and lost.

`mmupt.evaluation.model_comparison` computes them. Names, ids and responses are untrusted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mmupt.benchmarks import rule_version
from mmupt.evaluation.benchmark_scores import score_json
from mmupt.evaluation.model_comparison import LEVEL, RESAMPLES, SEED, ChangedQuestion, ModelComparison
from mmupt.evaluation.verdicts import JudgedFile, Verdict
from mmupt.reports.html_page import paragraph, pictures, section, shown, shown_answer, shown_question
from mmupt.reports.plots import AFTER_COLOR, LONGEST_LABEL, Panel, Points, draw
from mmupt.reports.tables import code, markdown_table, plus_minus
from verl_ext.counts import pluralize

# Ids shown in Markdown; the JSON has all of them.
NAMED = 5
NOTE = (
    "± is one standard error over questions (over problems where a line says so); for differences it is that of the "
    f"paired differences. The {LEVEL:.0%} interval is that of {RESAMPLES:,} paired resamples of the questions or "
    f'problems (percentiles, seed {SEED}), the same ones for all scores of a benchmark; "B not better" is the share of '
    "resamples without a difference above 0. It covers other questions of the same kind, but no retraining and no "
    "other samples of the models. It is not the probability that B is not better, and among many scores some are small "
    "by chance."
)


def render(comparisons: Sequence[ModelComparison]) -> str:
    """Format all comparisons as Markdown."""
    return "\n\n".join(("# Two models on the same questions", *map(_render, comparisons), NOTE)) + "\n"


def _render(comparison: ModelComparison) -> str:
    parts = [
        f"## {code(comparison.benchmark)}",
        f"- A: {_side(comparison.a)}\n- B: {_side(comparison.b)}",
        f"{len(comparison.questions):,} questions are compared. {' '.join(_not_compared(comparison))}".strip(),
    ]
    if comparison.parameters:
        lines = [f"- {code(name)}: A {code(a)}, B {code(b)}" for name, (a, b) in comparison.parameters.items()]
        parts.append("The responses were made with other parameters:\n\n" + "\n".join(lines))
    rows = [("rule, score", "A, %", "B, %", "B - A, points", f"{LEVEL:.0%} interval", "B not better, %")]
    for paired in comparison.scores:
        low, high = paired.interval
        unit = "" if paired.unit == "questions" else f", {paired.a.questions} problems"
        rows.append(
            (
                f"{paired.name}{unit}",
                plus_minus(paired.a),
                plus_minus(paired.b),
                plus_minus(paired.difference, signed=True),
                f"{100 * low:+.2f} to {100 * high:+.2f}",
                f"{100 * paired.not_better:.2f}",
            )
        )
    versions = ", ".join(f"{rule} {version}" for rule, version in _versions(comparison).items())
    return "\n\n".join((*parts, markdown_table(rows), f"Versions of the rules: {versions}.", _changes(comparison)))


def _versions(comparison: ModelComparison) -> dict[str, int]:
    """The version of each rule that judges model A."""
    answered = next(verdict for verdict in comparison.a.verdicts if verdict.response.id == comparison.questions[0])
    return {rule: rule_version(comparison.benchmark, rule) for rule in answered.right}


def _changes(comparison: ModelComparison) -> str:
    changes = comparison.changes
    in_part = f", {changes.equal_in_part:,} both in part, equally often" if changes.equal_in_part else ""
    return (
        f"By {changes.score}: {pluralize(len(changes.gained), 'question')} gained, {len(changes.lost):,} lost, "
        f"{changes.both_right:,} both right, {changes.both_wrong:,} both wrong{in_part}. If gains and losses were "
        f"equally likely, a count this uneven would have p = {changes.p_value:.3g} (exact McNemar or sign test)."
    )


def _side(side: JudgedFile) -> str:
    return f"{code(side.parameters.get('model'))}, responses {code(side.file)}"


def _not_compared(comparison: ModelComparison) -> Iterator[str]:
    for ids, what in (
        (comparison.only_a, "that only A answers are left out"),
        (comparison.only_b, "that only B answers are left out"),
        (comparison.incomplete, "with fewer responses than the others are left out"),
    ):
        if ids:
            yield f"{len(ids):,} {what}: {', '.join(map(code, ids[:NAMED]))}{', ...' if len(ids) > NAMED else ''}."
    for mode, (a, b) in comparison.other_numbers.items():
        yield f"Responses of mode {mode} are not compared, as A has {a} per question and B {b}."


def as_content(
    comparisons: Sequence[ModelComparison], extraction: str | None = None, rule: str | None = None
) -> dict[str, Any]:
    """Convert all comparisons to JSON values, with the answer settings that replaced the recorded ones."""
    return {
        "extraction": extraction,
        "rule": rule,
        "resamples": RESAMPLES,
        "seed": SEED,
        "level": LEVEL,
        "comparisons": [
            {
                "benchmark": comparison.benchmark,
                "versions": _versions(comparison),
                **{
                    name: {"model": side.parameters.get("model"), "file": str(side.file)}
                    for name, side in (("a", comparison.a), ("b", comparison.b))
                },
                "parameters": {name: {"a": a, "b": b} for name, (a, b) in comparison.parameters.items()},
                "questions": comparison.questions,
                "only_a": comparison.only_a,
                "only_b": comparison.only_b,
                "incomplete": comparison.incomplete,
                "other_numbers": {mode: {"a": a, "b": b} for mode, (a, b) in comparison.other_numbers.items()},
                "scores": {
                    paired.name: {
                        "unit": paired.unit,
                        "a": score_json(paired.a),
                        "b": score_json(paired.b),
                        "difference": score_json(paired.difference),
                        "interval": paired.interval,
                        "not_better": paired.not_better,
                    }
                    for paired in comparison.scores
                },
                "changes": {
                    name: getattr(comparison.changes, name)
                    for name in ("score", "gained", "lost", "both_right", "both_wrong", "equal_in_part", "p_value")
                },
            }
            for comparison in comparisons
        ],
    }


def plot(comparisons: Sequence[ModelComparison]) -> bytes:
    """Draw the differences of all scores with their intervals as a PNG, one panel per benchmark."""
    panels = [_panel(comparison) for comparison in comparisons]
    panels[-1] = replace(panels[-1], x_label=f"B - A, points, with {LEVEL:.0%} intervals over questions")
    counts = [len(comparison.scores) for comparison in comparisons]
    size = (9, 0.6 + sum(1.2 + 0.3 * count for count in counts))
    return draw(panels, columns=1, size=size, height_ratios=[3 + count for count in counts], share_x=True)


def _panel(comparison: ModelComparison) -> Panel:
    models = "\n".join(
        f"{name}: {side.parameters.get('model')}, {side.file}"[:LONGEST_LABEL]
        for name, side in (("A", comparison.a), ("B", comparison.b))
    )
    values = [100 * paired.difference.value for paired in comparison.scores]
    # A percentile interval need not contain the value.
    below = [max(0.0, v - 100 * paired.interval[0]) for v, paired in zip(values, comparison.scores, strict=True)]
    above = [max(0.0, 100 * paired.interval[1] - v) for v, paired in zip(values, comparison.scores, strict=True)]
    return Panel(
        f"{comparison.benchmark}, {len(comparison.questions)} questions\n{models}",
        [Points(values, range(len(values)), color=AFTER_COLOR, marker="D", size=6, x_errors=(below, above))],
        y_names=[paired.name for paired in comparison.scores],
        zero_line=True,
    )


def page(comparisons: Sequence[ModelComparison], images: Mapping[str, Mapping[str, Sequence[bytes]]]) -> list[str]:
    """The questions gained and lost, as parts for `mmupt.reports.html_page.write_page`.

    `images` are the encoded images of these questions by benchmark and id.
    """
    parts = []
    for comparison in comparisons:
        parts.append(f"<h2>{shown(comparison.benchmark)}</h2>")
        parts.append(paragraph(f"A: {_page_side(comparison.a)}\nB: {_page_side(comparison.b)}"))
        changes = comparison.changes
        for title, ids, examples in (
            ("Gained by B", changes.gained, changes.gained_examples),
            ("Lost by B", changes.lost, changes.lost_examples),
        ):
            parts.append(f"<h3>{title}, by {shown(changes.score)}: {len(examples)} of {len(ids)} questions</h3>")
            images_of = images[comparison.benchmark]
            parts += [_section(example, images_of.get(example.question.id, ())) for example in examples]
    return parts


def _page_side(side: JudgedFile) -> str:
    return f"{side.parameters.get('model')}, responses {side.file}"


def _section(changed: ChangedQuestion, images: Sequence[bytes]) -> str:
    question = changed.question
    choices = f"<p>Options: {'; '.join(map(shown, question.choices))}</p>" if question.choices else ""
    header = (
        f"<small>{shown(question.id)}</small>{pictures(images)}<p>{shown_question(question.text)}</p>{choices}"
        f"<p>Ground truth: {shown_answer(question.truth)}</p>"
    )
    return section(_cell("A", changed.a), _cell("B", changed.b), header=header)


def _cell(name: str, verdict: Verdict) -> str:
    answer = "no answer" if verdict.answer is None else f"answer {shown_answer(verdict.answer)}"
    verdicts = ", ".join(f"{rule}: {'right' if right else 'wrong'}" for rule, right in verdict.right.items())
    return f"<b>{name}: {answer}</b> ({shown(verdicts)}){paragraph(verdict.response.response)}"
