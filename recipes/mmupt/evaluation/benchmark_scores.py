"""The results schema: scores of the responses to one benchmark. Every score names its rule.

Only `score_verdicts` turns verdicts into scores. `NAME.scores.json` holds `BenchmarkScores` as JSON; `render` formats
them as Markdown.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, NamedTuple, TypeVar

from mmupt.benchmarks import BENCHMARKS, Question, rule_version
from mmupt.evaluation.response_files import Mode, Response
from mmupt.evaluation.verdicts import AnyExtraction, JudgedFile, Verdict, comparison_rule, verdicts_of
from mmupt.reports.tables import escaped, markdown_table, plus_minus
from verl_ext.answers import Comparison
from verl_ext.counts import pluralize
from verl_ext.scores import Score, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

# Names in `BenchmarkScores.headline`, besides mean@k, maj@k and pass@k.
GREEDY, ENTROPY, LENGTH = "greedy accuracy", "semantic entropy", "response length"
# Verdicts by question id, in the order of samples; every question has the same number.
Groups = Mapping[str, Sequence[Verdict]]


class StoredScore(NamedTuple):
    """A `Score` read from JSON, without the values of the questions."""

    value: float
    standard_error: float
    questions: int


AnyScore = TypeVar("AnyScore", bound=Score | StoredScore, covariant=True)
Scored = TypeVar("Scored")


@dataclass(frozen=True)
class BenchmarkScores(Generic[AnyScore]):
    """Scores of the responses to one benchmark: `Score` when just computed, `StoredScore` when read from JSON.

    rule: the leading rule. Breakdowns and `further` scores use it on the greedy responses if there are any, else they
        are averages over samples.
    versions: the version of each rule.
    questions: number of questions.
    not_answered: number of questions without a response.
    left_out: number of questions with fewer greedy or sampled responses than others; the scores of that mode leave
        them out.
    not_asked: number of questions that the model could not be asked, which count as wrong.
    no_answer: share of responses without an answer.
    accuracy: by rule, then by measure: greedy, mean@k, pass@k, and maj@k for the comparison of answers. A rule that did
        not decide on every response, such as a judge model's, is left out.
    tokens: mean number per response by mode; a mode is missing if its tokens were not counted.
    semantic_entropy: of the samples, in nats; None with fewer than two samples per question.
    breakdowns: by the authors' name of the breakdown, then by label: "value" and "questions".
    further: scores that only this benchmark has, by name.
    judge_unreadable: number of responses about which the judge's replies cannot be parsed; None without a judge.
    not_judged: number of responses about which a request to the judge failed; None without a judge.
    """

    benchmark: str
    rule: str
    versions: Mapping[str, int]
    questions: int
    not_answered: int
    left_out: int
    not_asked: int
    no_answer: float
    accuracy: Mapping[str, Mapping[str, AnyScore]]
    tokens: Mapping[Mode, AnyScore] = field(default_factory=dict)
    semantic_entropy: AnyScore | None = None
    breakdowns: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    further: Mapping[str, float] = field(default_factory=dict)
    judge_unreadable: int | None = None
    not_judged: int | None = None

    def headline(self) -> dict[str, AnyScore]:
        """The scores shown in a report: accuracies by the leading rule, maj@k, semantic entropy and response length."""
        measures = {name: score for of_rule in self.accuracy.values() for name, score in of_rule.items()}
        measures |= self.accuracy[self.rule]
        found = {GREEDY: measures["greedy"]} if "greedy" in measures else {}
        for prefix in ("mean@", "maj@", "pass@"):
            found |= {name: score for name, score in measures.items() if name.startswith(prefix)}
        if self.semantic_entropy is not None:
            found[ENTROPY] = self.semantic_entropy
        if "sample" in self.tokens:
            found[LENGTH] = self.tokens["sample"]
        return found

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values; fields that are None are left out."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "BenchmarkScores[StoredScore]":
        """Read the JSON form; raises TypeError or KeyError for another schema."""
        stored: dict[str, Any] = {
            "accuracy": {
                rule: {measure: StoredScore(**score) for measure, score in of_rule.items()}
                for rule, of_rule in content["accuracy"].items()
            },
            "tokens": {mode: StoredScore(**score) for mode, score in content["tokens"].items()},
        }
        if "semantic_entropy" in content:
            stored["semantic_entropy"] = StoredScore(**content["semantic_entropy"])
        return BenchmarkScores(**{**content, **stored})


def score_verdicts(judged: JudgedFile, verdicts: Sequence[Verdict] | None = None) -> list[BenchmarkScores[Score]]:
    """Score every benchmark that a file answers, in the order of their first questions.

    `verdicts` replace the file's own, for example with those of a judge model.

    Raises:
        ValueError: only one question of a benchmark has all responses, so there is no standard error.
    """
    by_source: dict[str, list[Verdict]] = {question.data_source: [] for question in judged.questions.values()}
    for verdict in judged.verdicts if verdicts is None else verdicts:
        by_source[judged.questions[verdict.response.id].data_source].append(verdict)
    return [_scores_of(judged, source, of_source) for source, of_source in by_source.items() if of_source]


def check_scorable(questions: dict[str, Question], extraction: AnyExtraction, comparison: Comparison) -> None:
    """Score an empty response to each question, so that errors show before a model is asked.

    Raises:
        ValueError: from `verdicts_of` or `score_verdicts`.
    """
    verdicts = verdicts_of([Response(id_, "greedy", 0, "") for id_ in questions], questions, extraction, comparison)
    score_verdicts(JudgedFile(Path("the responses"), {}, questions, verdicts, [], comparison))


def _scores_of(judged: JudgedFile, source: str, verdicts: Sequence[Verdict]) -> BenchmarkScores[Score]:
    comparison = judged.comparison
    questions = {id_: question for id_, question in sorted(judged.questions.items()) if question.data_source == source}
    greedy, sampled = (groups_of(verdicts, mode, questions) for mode in ("greedy", "sample"))
    modes: dict[Mode, dict[str, list[Verdict]]] = {"greedy": greedy, "sample": sampled}
    modes = {mode: groups for mode, groups in modes.items() if groups}
    if any(len(groups) == 1 for groups in modes.values()):
        raise ValueError(f"{judged.file}: a single question of {source} has no standard error: ask two or more")
    rules = [rule for rule in verdicts[0].right if all(rule in verdict.right for verdict in verdicts)]
    answered = {verdict.response.id for verdict in verdicts}
    readings = [verdict.judged for verdict in verdicts if verdict.judged]
    all_judged = len(readings) == len(verdicts)
    answers = [reading.answer for reading in readings] if all_judged else [verdict.answer for verdict in verdicts]
    entropy = None
    if responses_per_question(sampled) > 1:
        choices = [questions[id_].choices for id_ in sampled]
        entropy = semantic_entropy(_answers(sampled), comparison, choices)
    breakdowns: Mapping[str, Mapping[str, Mapping[str, float]]] = {}
    further: dict[str, float] = {}
    if benchmark := BENCHMARKS.get(source):
        groups = greedy or sampled
        right = dict(zip(groups, right_by(groups, rules[0]), strict=True))
        breakdowns = _breakdowns(right, questions, benchmark.breakdowns)
        if benchmark.scores:
            samples = per_sample(benchmark.scores, groups, rules[0], questions)
            further = {name: fmean(scores[name] for scores in samples) for name in samples[0]}
    return BenchmarkScores(
        benchmark=source,
        rule=rules[0],
        versions={rule: rule_version(source, rule) for rule in rules},
        questions=len(questions),
        not_answered=len(questions.keys() - answered),
        left_out=sum(any(id_ not in groups for groups in modes.values()) for id_ in answered),
        not_asked=len({verdict.response.id for verdict in verdicts if verdict.response.not_asked is not None}),
        no_answer=fmean(answer is None for answer in answers),
        accuracy=accuracy_of(rules, greedy, sampled, questions, comparison),
        tokens={mode: score for mode, groups in modes.items() if (score := _mean_tokens(groups)) is not None},
        semantic_entropy=entropy,
        breakdowns=breakdowns,
        further=further,
        judge_unreadable=sum(not reading.readable for reading in readings) if all_judged else None,
    )


def groups_of(verdicts: Iterable[Verdict], mode: Mode, ids: Iterable[str]) -> dict[str, list[Verdict]]:
    """The verdicts of one mode by question: as many for each as most questions have; those with fewer are left out."""
    by_question: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.response.sample):
        if verdict.response.mode == mode:
            by_question[verdict.response.id].append(verdict)
    sizes = Counter(map(len, by_question.values()))
    k = max(sizes, key=lambda size: (sizes[size], size), default=0)
    return {id_: by_question[id_][:k] for id_ in ids if len(by_question.get(id_, ())) >= max(k, 1)}


def accuracy_of(
    rules: Iterable[str],
    greedy: Groups,
    sampled: Groups,
    questions: Mapping[str, Question],
    comparison: Comparison = Comparison(),
) -> dict[str, dict[str, Score]]:
    """The score of the groups by rule ("official") and measure ("mean@4"), with values in the order of questions."""
    accuracy: dict[str, dict[str, Score]] = {rule: {} for rule in rules}
    k = responses_per_question(sampled)
    for rule, measures in accuracy.items():
        if greedy:
            measures["greedy"] = mean_at_k(right_by(greedy, rule))
        if sampled:
            measures[f"mean@{k}"] = mean_at_k(right_by(sampled, rule))
            measures[f"pass@{k}"] = pass_at_k(right_by(sampled, rule), k)
    own = comparison_rule(comparison)
    if k > 1 and own in accuracy:
        truths, choices = zip(*((questions[id_].truth, questions[id_].choices) for id_ in sampled), strict=True)
        # Only for the comparison of answers, because a vote must know which answers are equal.
        accuracy[own][f"maj@{k}"] = maj_at_k(_answers(sampled), truths, comparison, choices)
    return accuracy


def labelled(accuracy: Mapping[str, Mapping[str, AnyScore]]) -> dict[str, AnyScore]:
    """Flatten scores by rule and measure to the names in reports, such as "official, mean@4"."""
    return {f"{rule}, {measure}": score for rule, by_rule in accuracy.items() for measure, score in by_rule.items()}


def responses_per_question(groups: Groups) -> int:
    """The number of responses of each group; 0 without groups."""
    return len(next(iter(groups.values()), ()))


def right_by(groups: Groups, rule: str) -> list[list[bool]]:
    """Whether each response is right by this rule, as question x response."""
    return [[verdict.right[rule] for verdict in group] for group in groups.values()]


def per_sample(
    score: Callable[[Mapping[str, bool], Iterable[Question]], Scored],
    groups: Groups,
    rule: str,
    questions: Mapping[str, Question],
) -> list[Scored]:
    """Apply a benchmark's own score to the first responses to all questions, then to the second, and so on."""
    asked = [questions[id_] for id_ in groups]
    samples = zip(*right_by(groups, rule), strict=True)
    return [score(dict(zip(groups, of_sample, strict=True)), asked) for of_sample in samples]


def _answers(groups: Groups) -> list[list[str | None]]:
    return [[verdict.answer for verdict in group] for group in groups.values()]


def _mean_tokens(groups: Groups) -> Score | None:
    counts = [[verdict.response.tokens for verdict in group] for group in groups.values()]
    if any(count is None for group in counts for count in group):
        return None
    return Score(tuple(fmean(count or 0 for count in group) for group in counts))


def _breakdowns(
    right: Mapping[str, Sequence[bool]],
    questions: Mapping[str, Question],
    breakdowns_of: Callable[[Question], Mapping[str, tuple[str, ...]]],
) -> dict[str, dict[str, dict[str, float]]]:
    by_label: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for id_, of_question in right.items():
        for name, labels in breakdowns_of(questions[id_]).items():
            for label in labels:
                by_label[name][label].append(fmean(of_question))
    return {
        name: {label: {"value": fmean(values), "questions": len(values)} for label, values in sorted(labels.items())}
        for name, labels in by_label.items()
    }


def score_json(score: Score | StoredScore) -> dict[str, float]:
    """Convert a score to JSON values."""
    return {"value": score.value, "standard_error": score.standard_error, "questions": score.questions}


def _plain(value: Any) -> Any:
    if isinstance(value, Score | StoredScore):
        return score_json(value)
    return {name: _plain(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def render(scores: BenchmarkScores[Any]) -> str:
    """Format the scores of one benchmark as Markdown."""
    rows = [("rule, responses", "version", "accuracy, %", "questions")]
    for rule, measures in scores.accuracy.items():
        for measure, score in measures.items():
            rows.append((f"{rule}, {measure}", str(scores.versions[rule]), plus_minus(score), str(score.questions)))
    for name, value in scores.further.items():
        rows.append((f"{scores.rule}, {name}", str(scores.versions[scores.rule]), f"{100 * value:.2f}", ""))
    notes = [f"{100 * scores.no_answer:.1f} % of the responses have no answer."]
    for mode in ("greedy", "sample"):
        if tokens := scores.tokens.get(mode):
            notes.append(f"{tokens.value:.3g} ± {tokens.standard_error:.2g} tokens per response ({mode}).")
    if entropy := scores.semantic_entropy:
        notes.append(f"{entropy.value:.3g} ± {entropy.standard_error:.2g} nats of semantic entropy.")
    if scores.judge_unreadable:
        notes.append(
            f"The judge's replies about {pluralize(scores.judge_unreadable, 'response')} cannot be read, which counts "
            "as no answer or as wrong."
        )
    if scores.not_asked:
        notes.append(f"{pluralize(scores.not_asked, 'question')} could not be asked, counted as wrong.")
    if scores.not_answered or scores.left_out:
        notes.append(
            f"Of {scores.questions} questions, {scores.not_answered} have no response and {scores.left_out} have fewer "
            "than the others; the scores leave these out."
        )
    parts = [f"## {escaped(scores.benchmark)}", markdown_table(rows), " ".join(notes)]
    for name, labels in scores.breakdowns.items():
        of_labels = [(label, f"{100 * cell['value']:.2f}", str(cell["questions"])) for label, cell in labels.items()]
        parts.append(markdown_table([(name, f"{scores.rule}, %", "questions"), *of_labels]))
    return "\n\n".join(parts)
