"""Each patch fixes its bug, and the bug is still in the pinned version."""

import asyncio
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transfer_queue import BatchMeta, KVBatchMeta
from transformers import AutoModelForImageTextToText
from verl.models.transformers import qwen2_vl
from verl.utils import distributed, fsdp_utils, tensordict_utils, transferqueue_utils
from verl.utils.config import validate_config

from verl_ext.config_checks import AGENT_LOOP_MANAGER
from verl_ext.import_check import AGENT_LOOP_KEY

MODEL = Path("recipes/mmupt/tiny/model")


def batch(lengths: list[int]) -> tuple[list[torch.Tensor], TensorDict]:
    rows = [torch.arange(4 * length).view(4, length) + 100 * number for number, length in enumerate(lengths)]
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    return rows, TensorDict({"position_ids": nested}, batch_size=[len(lengths)])


def padded(data: TensorDict, lengths: list[int]) -> torch.Tensor:
    shape = (len(lengths), 4, max(lengths))
    return torch.nested.to_padded_tensor(data["position_ids"], padding=-1, output_size=shape)


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5], [4, 4], [4], [3, 6, 5], [2, 2, 7]])
@pytest.mark.parametrize("sent", [False, True], ids=["in one process", "sent to another"])
def test_position_ids_survive_batching_at_any_lengths(lengths: list[int], sent: bool) -> None:
    rows, data = batch(lengths)
    if sent:
        data = pickle.loads(pickle.dumps(data))
    tensordict_utils.maybe_fix_3d_position_ids(data)
    for row, got in zip(rows, padded(data, lengths), strict=True):
        assert torch.equal(got[:, : row.shape[1]], row) and (got[:, row.shape[1] :] == -1).all()
    assert data["position_ids"].offsets().diff().tolist() == lengths


def test_unpatched_equal_lengths_are_still_broken() -> None:
    rows, data = batch([5, 5, 5])
    tensordict_utils.maybe_fix_3d_position_ids.__wrapped__(data)
    with pytest.raises((RuntimeError, AssertionError, IndexError)):
        assert torch.equal(padded(data, [5, 5, 5]), torch.stack(rows))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_rows_are_selected_as_unpatched_verl_selects_them(lengths: list[int], data: st.DataObject) -> None:
    rows = tensordict_utils.list_of_dict_to_tensordict([{"uid": f"u{length}"} for length in lengths])
    rows["plain"] = torch.arange(len(lengths))
    rows["tokens"] = torch.nested.as_nested_tensor([torch.arange(length) for length in lengths], layout=torch.jagged)
    rows["positions"] = tensordict_utils.nested_tensor_from_tensor_list(
        [torch.arange(4 * length).view(4, length) for length in lengths], ragged_idx=2
    )
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8))
    selected = tensordict_utils.index_select_tensor_dict(rows, indices)
    expected = tensordict_utils.index_select_tensor_dict.__wrapped__(rows, indices)
    assert selected.batch_size == expected.batch_size and set(selected.keys()) == set(expected.keys())
    assert list(selected["uid"]) == list(expected["uid"]) == [f"u{lengths[row]}" for row in indices]
    assert torch.equal(selected["plain"], expected["plain"])
    for name in ("tokens", "positions"):
        assert torch.equal(selected[name].values(), expected[name].values())
        assert torch.equal(selected[name].offsets(), expected[name].offsets())
        assert selected[name]._ragged_idx == expected[name]._ragged_idx


def test_a_text_only_micro_batch_is_embedded_and_reaches_the_vision_tower() -> None:
    model = AutoModelForImageTextToText.from_pretrained(MODEL).model
    input_ids = torch.tensor([[10, 11, 12]])
    embeddings, _ = qwen2_vl._get_input_embeds(model, input_ids)
    assert torch.allclose(embeddings, model.get_input_embeddings()(input_ids))
    embeddings.sum().backward()
    assert all(parameter.grad is not None for parameter in model.visual.merger.parameters())


def test_unpatched_text_only_micro_batches_are_still_broken() -> None:
    model = AutoModelForImageTextToText.from_pretrained(MODEL).model
    with pytest.raises(AttributeError, match="mean"):
        qwen2_vl._get_input_embeds.__wrapped__(model, torch.tensor([[10, 11, 12]]))


def embeddings_and_gradients(
    model: torch.nn.Module, images: list[int], embed: Callable[..., Any]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return embeddings, the vision tower's gradients and the number of images it encoded, for a batch of images."""
    generator = torch.Generator().manual_seed(0)
    grids = [torch.tensor([1, 4, 4]), torch.tensor([1, 2, 8]), torch.tensor([1, 4, 4])]
    width = model.config.vision_config.in_channels * 2 * model.config.vision_config.patch_size**2
    pixels = [torch.randn(16, width, generator=generator) for _ in grids]
    # The same numbers in another shape are another image.
    pixels[1] = pixels[0]
    seen = 0

    def count(tower: Any, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal seen
        seen += len(kwargs["grid_thw"])

    model.zero_grad()
    hook = model.visual.register_forward_pre_hook(count, with_kwargs=True)
    input_ids = torch.full((len(images), 6), model.config.image_token_id)
    input_ids[:, 4:] = 10
    values, grid = torch.cat([pixels[image] for image in images]), torch.stack([grids[image] for image in images])
    # Positional arguments, as in veRL.
    embeddings, _ = embed(model, input_ids, None, values, None, grid, None)
    (embeddings * torch.randn(embeddings.shape, generator=generator)).sum().backward()
    hook.remove()
    gradients = torch.cat([parameter.grad.flatten() for parameter in model.visual.parameters()])
    return embeddings.detach(), gradients, seen


@given(st.lists(st.integers(0, 2), min_size=1, max_size=8))
@settings(max_examples=20)
def test_the_tower_encodes_each_image_once_and_nothing_else_changes(images: list[int]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(MODEL).model
    embeddings, gradients, seen = embeddings_and_gradients(model, images, qwen2_vl._get_input_embeds)
    unpatched = qwen2_vl._get_input_embeds.__wrapped__.__wrapped__
    expected, expected_gradients, all_seen = embeddings_and_gradients(model, images, unpatched)
    assert (seen, all_seen) == (len(set(images)), len(images))
    torch.testing.assert_close(embeddings, expected)
    # Sums of float32 in another order.
    assert (gradients - expected_gradients).norm() < 1e-4 * expected_gradients.norm()


@pytest.fixture
def only_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the environment of torchrun's only rank."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    yield
    distributed.destroy_global_process_group()


def test_verls_sft_trainer_gets_a_process_group_on_the_cpu(only_rank: None) -> None:
    assert distributed.initialize_global_process_group() == (0, 0, 1)
    assert torch.distributed.get_backend() == "cpu:gloo"


def test_unpatched_verls_sft_trainer_still_gets_none(only_rank: None) -> None:
    with pytest.raises(ValueError, match="Duplicate device type cpu"):
        distributed.initialize_global_process_group.__wrapped__()


def saved_and_updated(save: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Save, update and restore a parameter. Returns its values at the save and after the restore."""
    mesh = init_device_mesh("cpu", (1,))
    model = torch.nn.Linear(2, 2, bias=False)
    parameter = distribute_tensor(model.weight.detach(), mesh, [Shard(0)])
    model.weight = torch.nn.Parameter(parameter)
    before = parameter.full_tensor().clone()
    saved, spec = save(model)
    with torch.no_grad():
        model.weight.add_(1.0)
    fsdp_utils.fsdp2_sharded_load_from_cpu(model, saved, spec)
    return before, model.weight.full_tensor().detach()


def test_saved_parameters_outlive_an_update_on_the_cpu(only_rank: None) -> None:
    distributed.initialize_global_process_group()
    before, restored = saved_and_updated(fsdp_utils.fsdp2_sharded_save_to_cpu)
    assert torch.equal(restored, before)


def test_unpatched_saved_parameters_still_change_with_an_update(only_rank: None) -> None:
    distributed.initialize_global_process_group()
    before, restored = saved_and_updated(fsdp_utils.fsdp2_sharded_save_to_cpu.__wrapped__)
    assert torch.equal(restored, before + 1.0)


def test_verl_refuses_a_vote_without_groups_before_anything_starts() -> None:
    config = OmegaConf.create({"reward": {"reward_manager": {"name": "majority_vote"}}})
    with pytest.raises(ValueError, match=f"set {AGENT_LOOP_KEY}={AGENT_LOOP_MANAGER}"):
        validate_config(config, use_reference_policy=True, use_critic=False)


def test_vllm_keeps_linear_weights_where_training_can_replace_them() -> None:
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    from verl_ext.patches.vllm_cpu_weights import register

    register()
    assert not (current_platform.is_cpu() and _custom_ops._supports_onednn)


def columns_that_a_worker_looks_up(monkeypatch: pytest.MonkeyPatch, look_up: Callable[..., Any]) -> set[str]:
    """Return the columns looked up for a batch with tokens, features and text."""
    schema = {"dtype": None, "shape": None, "is_nested": False}
    columns = {"input_ids": False, "multi_modal_inputs": True, "raw_prompt": True}
    batch = BatchMeta(
        global_indexes=[0],
        partition_ids=["train"],
        field_schema={name: {**schema, "is_non_tensor": non_tensor} for name, non_tensor in columns.items()},
        production_status=torch.ones(1).numpy(),
    )

    async def retrieve(**_: Any) -> BatchMeta:
        return batch

    monkeypatch.setattr(transferqueue_utils, "TQ_INITIALIZED", True)
    monkeypatch.setattr(transferqueue_utils.tq, "get_client", lambda: SimpleNamespace(async_kv_retrieve_meta=retrieve))
    result = asyncio.run(look_up(KVBatchMeta(keys=["a"], tags=[{}], partition_id="train", extra_info={"epochs": 1})))
    assert result.extra_info == {"epochs": 1} and result.global_indexes == [0]
    return set(result.field_names)


def test_a_worker_looks_up_only_tensors_and_features(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = transferqueue_utils.async_kv_batch_meta2batch_meta
    assert columns_that_a_worker_looks_up(monkeypatch, look_up) == {"input_ids", "multi_modal_inputs"}


def test_an_unpatched_worker_still_looks_up_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = transferqueue_utils.async_kv_batch_meta2batch_meta.__wrapped__
    assert "raw_prompt" in columns_that_a_worker_looks_up(monkeypatch, look_up)


def test_vllm_inspects_a_model_class_in_its_own_process() -> None:
    from vllm.model_executor.models import registry

    from verl_ext.patches.vllm_cpu_inspection import register

    register()
    assert registry._run_in_subprocess(os.getpid) == os.getpid()


@pytest.mark.full_stack
def test_two_runs_with_separate_clusters_have_different_weight_sockets() -> None:
    code = (
        "import os, ray; from types import SimpleNamespace as Module;"
        "from verl_ext.patches import PATCHES;"
        "sender, server = (patch for patch in PATCHES if patch.name == 'socket_of_the_cluster');"
        "ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False);"
        "job = ray.get_runtime_context().get_job_id();"
        "Sender = type('Sender', (), {'__init__': lambda self: setattr(self, 'zmq_handle', f'ipc:///tmp/zmq-{job}-0')});"
        "Server = type('Server', (), {'__init__': lambda self: os.environ.update(VERL_RAY_JOB_ID=job)});"
        "sender.apply(Module(ServerAdapter=Sender));"
        "server.apply(Module(vLLMHttpServer=Server));"
        "Server(); print(Sender().zmq_handle, f'ipc:///tmp/zmq-{os.environ[\"VERL_RAY_JOB_ID\"]}-0', job)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[-3:]
        for _ in range(2)
    ]
    # Equal job ids, and still different sockets, on which both sides of a run agree.
    assert runs[0][2] == runs[1][2]
    assert runs[0][0] == runs[0][1] != runs[1][0] == runs[1][1]
