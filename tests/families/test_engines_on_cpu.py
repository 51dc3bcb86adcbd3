"""Actor and vLLM agree for every family: before and after updates, with adapters, from a checkpoint, and exported."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import environment
from family_table import documented_cells
from full_stack import HANG_SECONDS
from tiny_families import FAMILIES, Family

# Minimum correlation for exported weights, which are rounded to bfloat16.
OF_BFLOAT16 = 0.999
# Maximum difference of a probability, caused by another order of float32 sums.
GAP = 1e-4


pytestmark = pytest.mark.full_stack


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all selected families, from one process: its imports take as long as a family."""
    folder = tmp_path_factory.mktemp("engines")
    selected = (item.callspec.params["family"].name for item in request.session.items if item.path == request.path)
    names = [*dict.fromkeys(selected)]
    command = [sys.executable, Path(__file__).with_name("engines.py"), folder, *names]
    subprocess.run(command, env=environment(), check=True, timeout=len(names) * HANG_SECONDS)
    return folder


@pytest.fixture(scope="module")
def result(family: Family, results: Path) -> dict[str, Any]:
    result = json.loads((results / f"{family.name}.json").read_text())
    assert result["failure"] is None, result["failure"]
    return result


def probabilities(log_probs: list[list[float]]) -> torch.Tensor:
    return torch.tensor([value for row in log_probs for value in row]).exp()


def correlation(left: list[list[float]], right: list[list[float]]) -> float:
    return float(torch.corrcoef(torch.stack([probabilities(left), probabilities(right)]))[0, 1])


def gap(left: list[list[float]], right: list[list[float]]) -> float:
    """The largest difference of a token's probability."""
    return float((probabilities(left) - probabilities(right)).abs().max())


@pytest.mark.parametrize("state", ["base", "updated", "adapted"])
def test_actor_and_vllm_have_the_same_probabilities(family: Family, result: dict[str, Any], state: str) -> None:
    actor, vllm = result["actor"][state], result["vllm"][state]
    assert correlation(actor, vllm) >= 0.9999 and gap(actor, vllm) < GAP
    cells = documented_cells()[family.name]
    assert cells["correlation"] == ">= 0.9999"
    # A row has two images.
    assert cells["several images"] == ("yes" if family.has_images else "no images")
    if state == "adapted":
        has_experts, adapts_experts = (
            any(".experts." in name for name in result[names]) for names in ("weights", "adapters")
        )
        assert cells["LoRA"] == ("all but experts" if has_experts and not adapts_experts else "yes")


def test_an_update_changes_probabilities_noticeably(result: dict[str, Any]) -> None:
    assert gap(result["actor"]["base"], result["actor"]["updated"]) > 100 * GAP


def test_vllm_recomputes_image_features_after_an_update(family: Family, result: dict[str, Any]) -> None:
    if not family.has_images:
        pytest.skip("a family without images")
    with_image = result["with_image"]

    def of_images(rows: list[list[float]]) -> list[list[float]]:
        return [row for row, has_image in zip(rows, with_image, strict=True) if has_image]

    updated = of_images(result["actor"]["updated"])
    assert gap(updated, of_images(result["vllm"]["updated"])) < GAP
    # Without clearing its caches, vLLM uses features of the old vision tower.
    assert gap(updated, of_images(result["vllm"]["stale"])) > 10 * GAP


def test_rows_without_images_have_the_same_probabilities_in_a_separate_batch(
    family: Family, result: dict[str, Any]
) -> None:
    mixed = [row for row, has_image in zip(result["actor"]["base"], result["with_image"], strict=True) if not has_image]
    assert len(mixed) == len(result["text_only"]) and gap(mixed, result["text_only"]) < GAP
    assert documented_cells()[family.name]["mixed batch"] == ("yes" if family.has_images else "no images")


def test_a_checkpoint_continues_as_the_run_would_have(family: Family, result: dict[str, Any]) -> None:
    assert result["resumed"].keys() == {"updated", "updated again"}
    for state, values in result["resumed"].items():
        assert gap(values, result["actor"][state]) < GAP, state
    assert documented_cells()[family.name]["resume"] == "yes"


def test_the_exported_policy_equals_the_actors_in_transformers_and_vllm(family: Family, result: dict[str, Any]) -> None:
    assert result["exported"] == []
    assert correlation(result["actor"]["updated"], result["vllm"]["exported"]) >= OF_BFLOAT16
    assert documented_cells()[family.name]["export"] == "yes"


def test_log_probabilities_are_finite(result: dict[str, Any]) -> None:
    states = [*result["actor"].values(), *result["vllm"].values()]
    assert all(math.isfinite(value) for rows in states for row in rows for value in row)
