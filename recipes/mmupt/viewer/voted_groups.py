"""Votes of a run: its groups in a list, one by one, and by question."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmupt.reports.html_page import shown, shown_question
from mmupt.training.run_report import comparison_of, read_config
from mmupt.viewer.file_cache import FileCache, readable
from mmupt.viewer.question_text import answer_html, plain_question, question_html
from verl_ext.answers import equivalent
from verl_ext.votes.vote_files import files_of_steps, read_train_files, read_votes

# Minimum number of groups per reply but the last. Chunks let the page show the first groups early.
GROUPS_PER_CHUNK = 1_000
# Columns to read for a list of groups.
LISTED = (
    *("step", "id", "question", "majority_ratio", "tied", "no_answer", "pseudo_label", "ground_truth"),
    *("label_correct", "responses.list.element.reward"),
)
# Fields of a group in a list, in order.
GROUP_FIELDS = (
    *("step", "number", "id", "question", "majority_ratio", "tied", "no_answer", "pseudo_label", "ground_truth"),
    *("label_correct", "responses", "equal_rewards"),
)


class VotedGroups:
    """Reads the groups in the vote files of a run. KeyError or IndexError if a step or group does not exist."""

    def __init__(self, run_folder: Path, cache: FileCache) -> None:
        self._folder, self._cache = run_folder, cache

    def files(self) -> dict[int, Path]:
        """Return the vote files by step."""
        return files_of_steps(self._folder / "votes")

    def train_files(self) -> list[Path]:
        """Return the data files of the run, as its first vote file records them."""
        files = self.files()
        return read_train_files(files[min(files, default=0)])

    def groups(self, before: int | None = None, after: int | None = None) -> dict[str, Any]:
        """Return groups between two steps, latest step first: whole steps until there are GROUPS_PER_CHUNK groups.

        Returns:
            `fields`, the names of the values that `groups` lists, and `before` for the next request, None at the end.
        """
        steps = [
            step
            for step in reversed(self.files())
            if (before is None or step < before) and (after is None or step > after)
        ]
        groups: list[list[Any]] = []
        for position, step in enumerate(steps):
            groups += self._listed(step)
            if len(groups) >= GROUPS_PER_CHUNK and position + 1 < len(steps):
                return {"fields": GROUP_FIELDS, "groups": groups, "before": step}
        return {"fields": GROUP_FIELDS, "groups": groups, "before": None}

    def previews(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Return question and pseudo-label of groups as HTML; a key is step and number, such as "12.0"."""
        previews = []
        for key in keys:
            step, _, number = key.partition(".")
            group = dict(zip(GROUP_FIELDS, self._listed(int(step))[int(number)], strict=True))
            answers = [answer_html(group["pseudo_label"])]
            previews.append({"question_html": shown_question(group["question"]), "answers_html": answers})
        return previews

    def group(self, step: int, number: int) -> dict[str, Any]:
        """Return a group with its responses."""
        row = read_votes(self.files()[step])[number]
        return {
            **{name: row[name] for name in ("step", "first_policy", "last_policy", "id", "images", "majority_ratio")},
            **{name: row[name] for name in ("tied", "no_answer", "label_correct")},
            "question_html": question_html(row["question"], row["choices"]),
            "pseudo_label_html": answer_html(row["pseudo_label"]),
            "ground_truth_html": answer_html(row["ground_truth"]),
            "responses": [
                {
                    **{name: response[name] for name in ("class", "reward", "trained", "correct")},
                    "answer_html": answer_html(response["answer"]),
                    "html": shown(response["text"]),
                }
                for response in row["responses"]
            ],
        }

    def history(self, id_: str) -> list[dict[str, Any]]:
        """Return the groups of a question by step; `flipped` tells whether the pseudo-label changed.

        Labels are compared as the run compares answers, see `mmupt.training.vote_diagnostics`.
        """
        groups = [
            dict(zip(GROUP_FIELDS, fields, strict=True))
            for step in self.files()
            for fields in self._listed(step)
            if fields[GROUP_FIELDS.index("id")] == id_
        ]
        config, choices = read_config(self._folder), None
        with readable(self._folder / "config.yaml"):
            comparison = comparison_of(config)
        if groups:
            choices = read_votes(self.files()[groups[0]["step"]], ["choices"])[groups[0]["number"]]["choices"]

        def differ(a: str | None, b: str | None) -> bool:
            return a is not b if None in (a, b) else not equivalent(a, b, comparison, choices)

        return [
            {
                **{name: group[name] for name in ("step", "number", "majority_ratio", "tied", "label_correct")},
                "pseudo_label_html": answer_html(group["pseudo_label"]),
                "flipped": differ(previous["pseudo_label"], group["pseudo_label"]),
            }
            for previous, group in zip([*groups[:1], *groups], groups, strict=False)
        ]

    def _listed(self, step: int) -> list[list[Any]]:
        file = self.files()[step]
        return self._cache.get(
            f"step {step}", [file], lambda: [_group_fields(*row) for row in enumerate(read_votes(file, LISTED))]
        )


def _group_fields(number: int, row: dict[str, Any]) -> list[Any]:
    responses = row["responses"]
    computed = {
        "number": number,
        "question": plain_question(row["question"]),
        "responses": len(responses),
        "equal_rewards": len({response["reward"] for response in responses}) < 2,
    }
    return [{**row, **computed}[name] for name in GROUP_FIELDS]
