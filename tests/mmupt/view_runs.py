"""Run folders for the tests of `mmupt view`, with hostile text in rows and responses."""

from pathlib import Path

from PIL import Image, ImageDraw
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from mmupt.evaluation.response_files import Response, write_responses
from mmupt.synthesis.candidates import Candidate, JudgedCandidate
from mmupt.synthesis.synthesized_dataset import write_candidates
from mmupt_data.row_schema import Row, prompts_path
from mmupt_data.writer import write_dataset
from verl_ext.collapse import History
from verl_ext.files import write_json
from verl_ext.votes import vote
from verl_ext.votes.vote_files import GroupOnFile, VotedQuestion, VotedResponse, write_votes
from verl_ext.votes.vote_record import VoteRecord

HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
QUESTION = "<image>In triangle $ABC$, the angle at $A$ is $90^\\circ$. What is $\\frac{AB}{2}$ in cm?"


def picture(folder: Path, number: int, size: int = 84) -> bytes:
    """Draw a triangle, at a position that depends on the number."""
    image = Image.new("RGB", (size, size), "white")
    shift = number % (size // 4)
    corners = [(shift + 8, size - 10), (size - 12, size - 10), (shift + 8, 12)]
    ImageDraw.Draw(image).polygon(corners, outline="black", fill=(230, 240, 120 + number % 100))
    file = folder / f"{number}.png"
    image.save(file)
    return file.read_bytes()


def question_rows(folder: Path, count: int, size: int = 84) -> list[Row]:
    folder.mkdir(parents=True, exist_ok=True)
    return [
        Row(f"q{number}", "made-up", f"{QUESTION} ({number})", (picture(folder, number, size),), "a", "4")
        for number in range(count)
    ]


def group(id_: str, question: str, answers: list[str | None], truth: str | None = "4") -> GroupOnFile:
    """Make a group whose third response is hostile."""
    result = vote(answers)
    texts = [f"Half of $AB$ is $\\frac{{8}}{{2}}$, so \\boxed{{{answer}}}." for answer in answers]
    texts[2] = f"{HOSTILE} {texts[2]}"
    correct = [None if truth is None else answer == truth for answer in answers]
    responses = [
        VotedResponse(text, answer, reward, True, right)
        for text, answer, reward, right in zip(texts, answers, result.rewards, correct, strict=True)
    ]
    label_correct = None if None in (truth, result.pseudo_label) else result.pseudo_label == truth
    record = VoteRecord(result, 0.1, label_correct=label_correct)
    return GroupOnFile(VotedQuestion(id_, question, 1, None, truth, responses), record, (0, 0))


def write_run(folder: Path, steps: int = 3, questions: int = 6) -> Path:
    """Write a run with content for every tab. In its last step, the majority of `q0` is wrong and `q1` ties."""
    rows = question_rows(folder / "pictures", questions)
    for name, split in (("train", rows), ("test", rows[:4])):
        write_dataset(folder / name, {name: split}, {"rows": questions})
    train, test = (prompts_path(folder / name, name) for name in ("train", "test"))
    run = folder / "run"
    for step in range(1, steps + 1):
        is_last = step == steps
        groups = []
        for number, row in enumerate(rows):
            answers: list[str | None] = ["4", "4", "4", "3", None]
            if is_last and number < 2:
                answers = [["9", "9", "9", "4", None], ["4", "4", "3", "3", None]][number]
            groups.append(group(row.id, row.question.replace("<image>", ""), answers))
        write_votes(run / "votes" / f"{step}.parquet", [voted.row(step) for voted in groups], [str(train)])
    write_events(run / "tensorboard", steps)
    history = History(run / "history.jsonl")
    history.add_validation(steps, {"q0": [1.0]})
    parameters = {"data": {str(test): "sha"}, "samples": 1, "temperature": 1.0}
    for name, answer in (("before", "9"), ("after", "4")):
        responses = [
            Response(row.id, mode, 0, f"{HOSTILE} so \\boxed{{{answer}}}", 5)
            for row in rows[:4]
            for mode in ("greedy", "sample")
        ]
        write_responses(run / "evaluation" / f"{name}.jsonl", responses, {"model": name, **parameters})
    write_sheet(run / "round_1" / "synthesis", train)
    return run


def write_sheet(folder: Path, data: Path) -> None:
    written = [
        Candidate(f"q0-direct-{number}", "q0", "direct", "i", "What is $x$?", "sha", "r", f"How long is $AC_{number}$?")
        for number in range(2)
    ]
    candidates = [
        JudgedCandidate(written[0], vote_share=0.75),
        JudgedCandidate(written[1], dropped_by="duplicate", reason="asked before"),
    ]
    folder.mkdir(parents=True)
    write_candidates(folder / "candidates.jsonl", candidates)
    write_json(folder / "config.yaml", {"data": str(data)})


def write_events(folder: Path, steps: int) -> None:
    writer = EventFileWriter(str(folder))
    for name, first in (("vote/majority_ratio", 0.5), ("val-core/figures/acc/mean@1", 0.2), ("other/metric", 1.0)):
        for step in range(1, steps + 1):
            summary = Summary(value=[Summary.Value(tag=name, simple_value=first + step / 100)])
            writer.add_event(Event(wall_time=step, step=step, summary=summary))
    writer.close()
