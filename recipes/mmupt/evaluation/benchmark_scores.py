"""From verdicts to the figures of one benchmark, and these as Markdown. Every figure names the rule that made it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from mmupt.benchmarks import BENCHMARKS, OWN_RULE, Question, rule_version
from mmupt.evaluation.response_files import Mode
from mmupt.evaluation.verdicts import Verdict
from verl_ext.scores import Score, maj_at_k, mean_at_k, pass_at_k, semantic_entropy

# The verdicts on each question, as many for each, in the order of samples.
Groups = Mapping[str, Sequence[Verdict]]


def scores_by_benchmark(verdicts: Iterable[Verdict], questions: Mapping[str, Question]) -> list[dict[str, Any]]:
    """The `scores_of` every benchmark that was answered, in the order of its first question."""
    by_source: dict[str, list[Verdict]] = {question.data_source: [] for question in questions.values()}
    for verdict in verdicts:
        by_source[questions[verdict.response.id].data_source].append(verdict)
    return [scores_of(source, of_source, questions) for source, of_source in by_source.items() if of_source]


def scores_of(source: str, verdicts: Sequence[Verdict], questions: Mapping[str, Question]) -> dict[str, Any]:
    """The scores of the responses to one benchmark, which JSON can hold.

    `versions` has the version of each rule. `accuracy` maps a rule and a score ("official, greedy", "own, maj@4") to
    {"value", "standard_error", "questions"}.
    The rest is by the `rule` that leads, of greedy responses if there are some, else averaged over samples:
    `breakdowns` has the accuracy by label for each breakdown of the benchmark's authors, `further` what only this
    benchmark has. `semantic_entropy` (nats) and `tokens` are averages; `no_answer` is the share of responses without
    an answer, `not_answered` the number of questions without a response, `left_out` those with fewer than others,
    `not_asked` those that the model could not be asked, which count as wrong. A
    rule that did not decide on every response, as a judge model may not have, is left out; `judge_unreadable` is the
    number of responses about which the judge said nothing readable.
    """
    asked = {id_: question for id_, question in questions.items() if question.data_source == source}
    greedy, sampled = (groups_of(verdicts, mode, asked) for mode in ("greedy", "sample"))
    rules = [rule for rule in verdicts[0].right if all(rule in verdict.right for verdict in verdicts)]
    found: dict[str, Any] = {"benchmark": source, "rule": rules[0]}
    found["versions"] = {rule: rule_version(source, rule) for rule in rules}
    answered = {verdict.response.id for verdict in verdicts}
    found["questions"] = len(asked)
    found["not_answered"] = len(asked.keys() - answered)
    found["left_out"] = len(answered - (greedy.keys() | sampled.keys()))
    found["not_asked"] = len({one.response.id for one in verdicts if one.response.not_asked is not None})
    found["no_answer"] = fmean(verdict.answer is None for verdict in verdicts)
    readings = [verdict.judged for verdict in verdicts if verdict.judged]
    if len(readings) == len(verdicts):
        found["no_answer"] = fmean(reading.answer is None for reading in readings)
        found["judge_unreadable"] = sum(not reading.readable for reading in readings)
    if responses_each(sampled) > 1:
        choices = [asked[id_].choices for id_ in sampled]
        found["semantic_entropy"] = as_json(semantic_entropy(_answers(sampled), choices=choices))
    found["accuracy"] = {name: as_json(score) for name, score in accuracy_of(rules, greedy, sampled, asked).items()}
    groups = greedy or sampled
    counts = [[verdict.response.tokens for verdict in group] for group in groups.values()]
    if all(count is not None for group in counts for count in group):
        found["tokens"] = as_json(Score(tuple(fmean(count or 0 for count in group) for group in counts)))
    if benchmark := BENCHMARKS.get(source):
        right = dict(zip(groups, right_by(groups, found["rule"]), strict=True))
        found["breakdowns"] = _breakdowns(right, asked, benchmark.breakdowns)
        if benchmark.scores:
            answered_questions = [asked[id_] for id_ in groups]
            of_each_sample = [
                benchmark.scores({id_: of_question[sample] for id_, of_question in right.items()}, answered_questions)
                for sample in range(len(next(iter(right.values()))))
            ]
            found["further"] = {name: fmean(one[name] for one in of_each_sample) for name in of_each_sample[0]}
    return found


def groups_of(verdicts: Iterable[Verdict], mode: Mode, asked: Iterable[str]) -> dict[str, list[Verdict]]:
    """The verdicts of one mode by question, as many for each as most have; questions with fewer are left out."""
    by_question: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.response.sample):
        if verdict.response.mode == mode:
            by_question[verdict.response.id].append(verdict)
    sizes = Counter(map(len, by_question.values()))
    k = max(sizes, key=lambda size: (sizes[size], size), default=0)
    return {id_: by_question[id_][:k] for id_ in asked if len(by_question.get(id_, ())) >= max(k, 1)}


def accuracy_of(
    rules: Iterable[str], greedy: Groups, sampled: Groups, questions: Mapping[str, Question]
) -> dict[str, Score]:
    """By rule and figure ("official, greedy", "own, maj@4") the score over the questions of the groups, in order."""
    accuracy: dict[str, Score] = {}
    k = responses_each(sampled)
    for rule in rules:
        if greedy:
            accuracy[f"{rule}, greedy"] = mean_at_k(right_by(greedy, rule))
        if sampled:
            accuracy[f"{rule}, mean@{k}"] = mean_at_k(right_by(sampled, rule))
            accuracy[f"{rule}, pass@{k}"] = pass_at_k(right_by(sampled, rule), k)
    if k > 1:
        truths, choices = zip(*((questions[id_].truth, questions[id_].choices) for id_ in sampled), strict=True)
        # By the project's comparison alone, as a vote has to say which answers are the same.
        accuracy[f"{OWN_RULE}, maj@{k}"] = maj_at_k(_answers(sampled), truths, choices=choices)
    return accuracy


def responses_each(groups: Groups) -> int:
    """How many responses each of the groups has; 0 where there is no group."""
    return len(next(iter(groups.values()), ()))


def right_by(groups: Groups, rule: str) -> list[list[bool]]:
    """Whether each response is right by this rule: question x response."""
    return [[verdict.right[rule] for verdict in group] for group in groups.values()]


def _answers(groups: Groups) -> list[list[str | None]]:
    return [[verdict.answer for verdict in group] for group in groups.values()]


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


def as_json(score: Score) -> dict[str, float]:
    """A score as JSON holds it."""
    return {"value": score.value, "standard_error": score.standard_error, "questions": score.questions}


def render(scores: Mapping[str, Any]) -> str:
    """The scores of one benchmark as Markdown."""
    lines = [f"## {scores['benchmark']}", "", "| rule, responses | version | accuracy, % | questions |"]
    lines.append("|---|---|---|---|")
    for name, one in scores["accuracy"].items():
        version = scores["versions"][name.rpartition(", ")[0]]
        accuracy = f"{100 * one['value']:.2f} ± {100 * one['standard_error']:.2f}"
        lines.append(f"| {name} | {version} | {accuracy} | {one['questions']} |")
    for name, value in scores.get("further", {}).items():
        version = scores["versions"][scores["rule"]]
        lines.append(f"| {scores['rule']}, {name} | {version} | {100 * value:.2f} | |")
    notes = [f"{100 * scores['no_answer']:.1f} % of the responses have no answer."]
    for name, unit in (("tokens", "tokens a response"), ("semantic_entropy", "nats of semantic entropy")):
        if one := scores.get(name):
            notes.append(f"{one['value']:.3g} ± {one['standard_error']:.2g} {unit}.")
    if unreadable := scores.get("judge_unreadable"):
        notes.append(
            f"About {unreadable} responses the judge said nothing readable: they have no answer, or are wrong."
        )
    if not_asked := scores.get("not_asked"):
        notes.append(f"{not_asked} questions could not be asked and count as wrong.")
    if scores["not_answered"] or scores["left_out"]:
        notes.append(
            f"Of {scores['questions']} questions {scores['not_answered']} have no response, and {scores['left_out']} "
            "have fewer than the others: they are in no figure."
        )
    lines += ["", " ".join(notes)]
    for name, labels in scores.get("breakdowns", {}).items():
        lines += ["", f"| {name} | {scores['rule']}, % | questions |", "|---|---|---|"]
        lines += [f"| {label} | {100 * one['value']:.2f} | {one['questions']} |" for label, one in labels.items()]
    return "\n".join(lines)
