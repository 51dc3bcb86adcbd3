"""A scripted policy for tests of the baselines, which replaces vLLM, and the rows that it answers."""

from copy import deepcopy
from functools import cache
from pathlib import Path

from omegaconf import DictConfig
from stand_in_engine import StandInEngine, content, write_training_rows

from mmupt.compose import load_recipe
from mmupt.evaluation.generation import QuestionRequest
from mmupt_data.figure_task import draw_figure, encode_png, sample_figures
from mmupt_data.row_schema import Row

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "recipes" / "mmupt" / "tiny" / "model"
PICTURES = [encode_png(draw_figure(figure)) for figure in sample_figures("train", 4, seed=0)]
ROWS = [
    Row("a", "made-up", "<image>what is the sum ?", PICTURES[:1], "kind", "2"),
    Row("b", "made-up", "<image>and <image> ?", tuple(PICTURES[1:3]), "kind", "0.5"),
    Row("c", "made-up", "<image>how long ?", (PICTURES[3],), "kind", "9"),
]
# The answers in each group of a row: the majority is 2 for a and 1/2 for b; c is a tie.
ANSWERS = {"a": ["2", "2", "3", "2"], "b": ["1/2", "7", "0.5", None], "c": ["4", "4", "5", "5"]}


def write_rows(folder: Path) -> Path:
    """Write `ROWS` and return their file."""
    return write_training_rows(folder, ROWS)


class Engine(StandInEngine):
    """Answers with `ANSWERS`, and judges that 2 and 0.5 are right."""

    def respond(self, request: QuestionRequest, number: int) -> str:
        id_ = request.row["id"]
        if request.name == "questions":
            return f"how many {('red', 'green', 'blue')[number]} bars are in figure {id_[0]} ?"
        if request.name == "samples":
            answer = ANSWERS[id_[0]][number % 4]
            return "I give up ." if answer is None else f"so {number} \\boxed{{{answer}}}"
        if request.name == "verdicts":
            # One of four verdicts is the opposite.
            is_right = f" is {'2' if id_[0] == 'a' else '0.5'} right" in content(request)
            return "yes" if is_right != (number == 3) else "no"
        if request.name == "dispreferred":
            return "a blur ." if id_ != "c" else "figure c ."
        return f"figure {id_} ."


@cache
def composed(method: str, overrides: tuple[str, ...]) -> DictConfig:
    """Compose a small recipe of a method, cached because composing takes a second."""
    keys = ["mmupt.baseline.rows=null", "actor_rollout_ref.rollout.n=4", "mmupt.baseline.verdict_samples=4"]
    keys += [f"actor_rollout_ref.model.path={MODEL}", "data.instruction='think !'"]
    return load_recipe("mmupt_tiny", [f"method={method}", *keys, *overrides])[0]


def recipe(method: str, data: Path, folder: Path, *overrides: str) -> DictConfig:
    """Return the recipe of a method for a data file and a run folder."""
    config = deepcopy(composed(method, overrides))
    config.data.train_files, config.mmupt.run_folder = str(data), str(folder)
    return config
