"""Actor and vLLM of every family say the same: before and after updates, with adapters, from a checkpoint, exported."""

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

# Exported weights are rounded to bfloat16.
OF_BFLOAT16 = 0.999
# Of a probability, where float32 sums in another order.
GAP = 1e-4


pytestmark = pytest.mark.full_stack


@pytest.fixture(scope="module", params=FAMILIES.values(), ids=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of all families that are tested, by one process: its imports take as long as a family."""
    folder = tmp_path_factory.mktemp("engines")
    tested = (item.callspec.params["family"].name for item in request.session.items if item.path == request.path)
    names = [*dict.fromkeys(tested)]
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


def correlation(one: list[list[float]], other: list[list[float]]) -> float:
    return float(torch.corrcoef(torch.stack([probabilities(one), probabilities(other)]))[0, 1])


def gap(one: list[list[float]], other: list[list[float]]) -> float:
    return float((probabilities(one) - probabilities(other)).abs().max())


@pytest.mark.parametrize("state", ["base", "updated", "adapted"])
def test_actor_and_vllm_have_the_same_probabilities(family: Family, result: dict[str, Any], state: str) -> None:
    actor, vllm = result["actor"][state], result["vllm"][state]
    assert correlation(actor, vllm) >= 0.9999 and gap(actor, vllm) < GAP
    cells = documented_cells()[family.name]
    assert cells["correlation"] == ">= 0.9999"
    # One of the rows has two images.
    assert cells["several images"] == ("yes" if family.has_images else "no images")
    if state == "adapted":
        has_experts, with_adapters = (any(".experts." in one for one in result[of]) for of in ("weights", "adapters"))
        assert cells["LoRA"] == ("all but experts" if has_experts and not with_adapters else "yes")


def test_an_update_is_large_enough_to_be_missed(result: dict[str, Any]) -> None:
    assert gap(result["actor"]["base"], result["actor"]["updated"]) > 100 * GAP


def test_vllm_forgets_what_it_knows_of_an_image_when_its_weights_change(family: Family, result: dict[str, Any]) -> None:
    if not family.has_images:
        pytest.skip("a family without images")
    with_image = result["with_image"]

    def of_images(rows: list[list[float]]) -> list[list[float]]:
        return [row for row, has_image in zip(rows, with_image, strict=True) if has_image]

    updated = of_images(result["actor"]["updated"])
    assert gap(updated, of_images(result["vllm"]["updated"])) < GAP
    # With its caches, vLLM shows the new weights the features that the old tower computed.
    assert gap(updated, of_images(result["vllm"]["stale"])) > 10 * GAP


def test_rows_without_images_have_the_same_probabilities_in_a_batch_of_their_own(
    family: Family, result: dict[str, Any]
) -> None:
    mixed = [row for row, has_image in zip(result["actor"]["base"], result["with_image"], strict=True) if not has_image]
    assert len(mixed) == len(result["text_alone"]) and gap(mixed, result["text_alone"]) < GAP
    assert documented_cells()[family.name]["mixed batch"] == ("yes" if family.has_images else "no images")


def test_a_checkpoint_continues_as_the_run_would_have(family: Family, result: dict[str, Any]) -> None:
    assert result["resumed"].keys() == {"updated", "updated again"}
    for state, values in result["resumed"].items():
        assert gap(values, result["actor"][state]) < GAP, state
    assert documented_cells()[family.name]["resume"] == "yes"


def test_the_exported_policy_is_the_actors_in_transformers_and_vllm(family: Family, result: dict[str, Any]) -> None:
    assert result["exported"] == []
    assert correlation(result["actor"]["updated"], result["vllm"]["exported"]) >= OF_BFLOAT16
    assert documented_cells()[family.name]["export"] == "yes"


def test_log_probabilities_are_numbers(result: dict[str, Any]) -> None:
    states = [*result["actor"].values(), *result["vllm"].values()]
    assert all(math.isfinite(value) for rows in states for row in rows for value in row)
