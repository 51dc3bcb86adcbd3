"""Small local copies of the hub's data sets, with their published columns. `write` creates one to pass as SOURCE.

Rows are valid unless a test's `change` breaks them before they are written.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value
from pictures import picture

Record = dict[str, Any]


def image(seed: int) -> Record:
    return {"bytes": picture(seed), "path": None}


def problem(index: int) -> Record:
    return {"images": [image(index)], "problem": f"<image>Find x in drawing {index}.", "answer": str(index)}


def geoqa_older(index: int) -> Record:
    return {"image": image(index), "problem": f"Find x {index}.", "solution": f"<answer> {index} </answer>"}


def synthetic(index: int) -> Record:
    return {"image": image(index), "problem": f"How long is side {index}?", "answer": "unreliable"}


def thinklite(index: int) -> Record:
    choices = [f"{index}", f"{index + 1}"] if index % 2 else []
    return {
        "image": picture(index),
        "problem": f"<image>Find y in drawing {index}.",
        "ground_truth": "A" if choices else f"{index}",
        "id": f"row {index}",
        "choices": choices,
    }


def mathvista(index: int) -> Record:
    choices = ["larger", "smaller"] if index % 2 else None
    return {
        "pid": str(index + 1),
        "question": f"How does {index} compare?",
        "image": f"images/{index}.jpg",
        "decoded_image": image(index),
        "choices": choices,
        "unit": None,
        "precision": None if choices else 1.0,
        "answer": "smaller" if choices else "1.5",
        "question_type": "multi_choice" if choices else "free_form",
        "answer_type": "text" if choices else "float",
        "metadata": {"category": "math-targeted-vqa", "grade": "high school", "skills": ["algebraic reasoning"]},
        "query": f"Hint: Please answer the question.\nQuestion: How does {index} compare?",
    }


def mathvision(index: int) -> Record:
    return {
        "id": str(index),
        "question": f"Which of the shapes in <image1> and <image2> is number {index}?",
        "options": ["A", "B", "C", "D", "E"] if index % 2 else [],
        "image": f"images/{index}.jpg",
        "decoded_image": image(index),
        "answer": "B" if index % 2 else "7",
        "solution": None,
        "level": 1 + index % 5,
        "subject": "topology",
    }


def mathverse(index: int) -> Record:
    vision_only = index % 5 == 4
    return {
        "sample_index": str(index + 1),
        "problem_index": "1",
        "problem_version": "Vision Only" if vision_only else "Text Lite",
        "question": "" if vision_only else f"As shown in figure {index}, find x.\nChoices:\nA:1\nB:2",
        "image": image(index),
        "answer": "A",
        "question_type": "multi-choice",
        "metadata": {"split": "testmini", "source": "GEOS", "subject": "Plane Geometry", "subfield": "Angle"},
        "query_wo": f"Please directly answer the question in figure {index}.",
        "query_cot": "Please first conduct reasoning.",
        "question_for_eval": "find x",
    }


def wemath(index: int) -> Record:
    return {
        "ID": f"3steps_{index // 4}",
        "split": "testmini",
        "knowledge concept": "Area of Circles",
        "question": f"What is the area of circle {index} (  )",
        "option": "A. 12 cm;B. 5 cm^2;C. v = 3; w = 2;D. No correct answer",
        "answer": "B",
        "image_path": image(index),
        "key": ("3steps_1", "3steps_2", "3steps_3", "3steps_multi")[index % 4],
        "question number": 100 + index,
    }


IMAGE = {"image": Image()}
IMAGES = {"images": List(Image())}
# Per data set: the function that builds a row, the hub's split names, and the types that rows do not imply.
SHAPES: Mapping[str, tuple[Callable[[int], Record], tuple[str, ...], Mapping[str, Any]]] = {
    "geometry3k": (problem, ("train", "validation", "test"), IMAGES),
    "geoqa": (problem, ("train",), IMAGES),
    "mmr1": (problem, ("train", "validation"), IMAGES),
    **{
        f"{origin}_{strategy}": (synthetic, ("train",), IMAGE)
        for origin in ("geometry3k", "geoqa", "mmr1")
        for strategy in ("in_context", "direct")
    },
    "thinklite": (thinklite, ("train",), {"image": Value("binary"), "choices": List(Value("string"))}),
    "mathvista": (mathvista, ("testmini",), {"decoded_image": Image(), "choices": List(Value("string"))}),
    "mathvision": (mathvision, ("test", "testmini"), {"decoded_image": Image(), "options": List(Value("string"))}),
    "mathverse": (mathverse, ("testmini",), IMAGE),
    "wemath": (wemath, ("testmini",), {"image_path": Image()}),
}


def aime(index: int) -> Record:
    return {
        "id": 60 + index,
        "problem": f"Find the remainder of {index} when it is divided by $1000$.",
        "solution": f"It is {index}.",
        "answer": f"{index:03d}",
        "url": f"https://artofproblemsolving.com/wiki/{index}",
        "year": "2024",
    }


def amc(index: int) -> Record:
    return {"id": index, "problem": f"What is $m+n$ of {index}?", "answer": float(index), "url": f"https://{index}"}


def math500(index: int) -> Record:
    return {
        "problem": f"Convert the point $(0,{index})$ to polar coordinates.",
        "solution": "We have that $r = 3.$",
        "answer": rf"\left( {index}, \frac{{\pi}}{{2}} \right)",
        "subject": "Precalculus",
        "level": 2,
        "unique_id": f"test/precalculus/{index}.json",
    }


def ttrl(index: int) -> Record:
    return {"prompt": f"What is {index} of {index}?", "answer": f"{index}.0", "source": "amc", "id": f"{index}"}


# Per text-only data set: the function that builds a row, and the hub's name of the only split.
TEXT_SHAPES: Mapping[str, tuple[Callable[[int], Record], str]] = {
    "aime2024": (aime, "train"),
    "amc": (amc, "train"),
    "math500": (math500, "test"),
}


def unchanged(records: list[Record]) -> None:
    """Change nothing."""


def write(folder: Path, name: str, rows: int = 6, change: Callable[[list[Record]], None] = unchanged) -> Path:
    """Write `rows` rows per split, after `change` altered the records in place. Returns the folder."""
    record, splits, types = SHAPES[name]
    for number, split in enumerate(splits):
        records = [record(100 * number + index) for index in range(rows)]
        change(records)
        write_split(folder, split, records, types)
    return folder


def write_split(folder: Path, split: str, records: list[Record], types: Mapping[str, Any]) -> None:
    """Write one split as the hub does: parquet files under `data/`."""
    inferred = Dataset.from_list([{k: v for k, v in r.items() if k not in types} for r in records]).features
    (folder / "data").mkdir(parents=True, exist_ok=True)
    features = Features({name: types.get(name, inferred.get(name)) for name in records[0]})
    Dataset.from_list(records, features=features).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
