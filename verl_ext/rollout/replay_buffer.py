"""The `custom_sampler`: veRL's replay buffer plus vote metrics, votes on file, a watchdog and the collapse alarm.

They all hook into `sample()`: there veRL waits for rollouts and adds extra metrics to the step in every logger, and it
is the only place that sees both training and validation rows.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import ray
import transfer_queue as tq
from transfer_queue import KVBatchMeta
from verl.trainer.config import FilterGroupsConfig
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from verl_ext import metric_names
from verl_ext.collapse import read_alarm
from verl_ext.config_defaults import SAMPLER_DEFAULTS, SAMPLER_KEY
from verl_ext.counts import pluralize
from verl_ext.files import file_list
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import read_settings
from verl_ext.rollout.queue_rows import VOTED_QUESTION
from verl_ext.rollout.watchdog import Watchdog
from verl_ext.trackers.group_tables import GroupTables
from verl_ext.votes.vote_files import GroupOnFile, VotedQuestion, VoteFiles
from verl_ext.votes.vote_metrics import TrainedGroup, vote_metrics
from verl_ext.votes.vote_record import VoteRecord


def _values(data: Any, field: str) -> list[Any]:
    """Return the values of a non-tensor field, an empty list if the rows lack it."""
    # Elements are wrapped or plain, depending on how the column was stored.
    return [getattr(value, "data", value) for value in data[field]] if field in data.keys() else []


def _final_outputs(batch: KVBatchMeta, *fields: str) -> tuple[list[str], Any]:
    """Return the sessions of a batch and fields of each session's last output; all its outputs have the same score."""
    ordered = sorted(batch.keys, key=lambda key: int(key.rsplit("_", 1)[1]))
    final = {key.rsplit("_", 1)[0]: key for key in ordered}
    data = tq.kv_batch_get(keys=list(final.values()), partition_id=batch.partition_id, select_fields=list(fields))
    return list(final), data


def _policies(batch: KVBatchMeta) -> dict[str, tuple[int, int]]:
    """Return the first and last policy version, in training steps, that sampled each group, by uid."""
    versions: dict[str, list[int]] = defaultdict(list)
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        # Rollout engines other than vLLM may not report the version.
        known = (tag.get("min_global_steps"), tag.get("max_global_steps"))
        versions[key.split("_")[0]] += [version for version in known if version is not None]
    return {uid: (min(steps), max(steps)) for uid, steps in versions.items() if steps}


def _reward_infos(data: Any) -> list[dict[str, Any]]:
    return [fields.get("reward_extra_info", {}) for fields in _values(data, "extra_fields")]


def _outcomes(batch: KVBatchMeta) -> dict[str, list[float]]:
    """Return the accuracy of each response of a validation batch, by question id.

    Empty if another reward manager gave no `acc` or another agent loop manager left rows without an id.
    """
    outcomes: dict[str, list[float]] = defaultdict(list)
    if batch.keys:
        _, data = _final_outputs(batch, "id", "extra_fields")
        for question, info in zip(_values(data, "id"), _reward_infos(data), strict=False):
            if "acc" in info:
                outcomes[str(question)].append(float(info["acc"]))
    return outcomes


def _trained_groups(batch: KVBatchMeta, policies: Mapping[str, tuple[int, int]]) -> dict[str, TrainedGroup]:
    """Return the groups of a training batch by uid, no groups if another reward manager scored the batch."""
    sessions, data = _final_outputs(batch, "rm_scores", "extra_fields")
    records: dict[str, VoteRecord] = {}
    rewards: dict[str, list[float]] = defaultdict(list)
    for session, info, scores in zip(sessions, _reward_infos(data), data["rm_scores"], strict=True):
        uid = session.rsplit("_", 1)[0]
        rewards[uid].append(float(scores.sum()))
        if uid not in records:
            if (record := VoteRecord.from_extra_info(info)) is None:
                return {}
            records[uid] = record
    spans = {uid: last - first + 1 for uid, (first, last) in policies.items()}
    return {uid: TrainedGroup(record, rewards[uid], spans.get(uid, 1)) for uid, record in records.items()}


def _groups_for_file(
    batch: KVBatchMeta,
    groups: Mapping[str, TrainedGroup],
    policies: Mapping[str, tuple[int, int]],
    choose: Callable[[Sequence[str]], list[int]],
) -> list[GroupOnFile]:
    """Return the groups of a training batch that go on file, which `choose` selects by question id."""
    # The row of the first response contains the whole group.
    first: dict[str, str] = {}
    for key in sorted(batch.keys, key=lambda key: [int(number) for number in key.split("_")[-2:]]):
        first.setdefault(key.rsplit("_", 2)[0], key)
    uids = [uid for uid in first if uid in groups]
    if not uids:
        return []
    ids = tq.kv_batch_get(keys=[first[uid] for uid in uids], partition_id=batch.partition_id, select_fields=["id"])
    chosen = [uids[position] for position in choose([str(id_) for id_ in _values(ids, "id")])]
    data = tq.kv_batch_get(
        keys=[first[uid] for uid in chosen], partition_id=batch.partition_id, select_fields=[VOTED_QUESTION]
    )
    return [
        GroupOnFile(VotedQuestion.from_json(voted), groups[uid].record, policies.get(uid))
        # Rows from a queue saved without votes on file lack this field.
        for uid, voted in zip(chosen, _values(data, VOTED_QUESTION), strict=False)
        if voted
    ]


def _pending_prompts() -> str:
    """Describe what prompts wait for, with counts and some ids, from the tags of the agent loop workers."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for tags in (tq.kv_list() or {}).values():
        for tag in tags.values():
            if tag.get("is_prompt") and tag["status"] in ("pending", "running"):
                waiting[tag.get("phase", "an agent loop worker")].append(tag.get("id", "?"))
    if not waiting:
        return "no prompt is pending, the trainer itself waits"
    return "; ".join(
        f"{pluralize(len(ids), 'prompt waits', 'prompts wait')} for {phase}: "
        f"{', '.join(sorted(ids)[:5])}{', ...' if len(ids) > 5 else ''}"
        for phase, ids in sorted(waiting.items())
    )


# Ray namespace of TransferQueue's controller (transfer_queue/interface.py). Its storage is in the run's namespace.
QUEUE_NAMESPACE = "transfer_queue"


def _actors_of_the_run() -> set[str]:
    """Return the names of this run's live actors, without actors of other runs in the same Ray cluster."""
    namespaces = (ray.get_runtime_context().namespace, QUEUE_NAMESPACE)
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["namespace"] in namespaces}


class VoteReplayBuffer(ReplayBuffer):
    """veRL's replay buffer for the trainer mode, which also reports `vote/*`; sampling is unchanged.

    `trainer.v1.sampler.sampler_kwargs` holds the keys of `verl_ext.config_defaults.SAMPLER_DEFAULTS`, which are filled
    in before veRL's trainer starts. The accuracy of pseudo-labels and rewards arrives with the responses, see
    `verl_ext.rewards.accuracy`. After a collapse (see `read_alarm`), `sample` raises StoppedOnCollapse before the next
    training step.

    Raises:
        ValueError: keys are missing.
    """

    def __new__(cls, *, trainer_mode: str, **kwargs: Any) -> "VoteReplayBuffer":
        """Create a `VoteReplayBufferAsync` unless the trainer mode is sync."""
        return super().__new__(cls if trainer_mode == "sync" else VoteReplayBufferAsync)

    def __init__(self, *, trainer_mode: str, sampler_kwargs: Any, **kwargs: Any) -> None:
        if missing := SAMPLER_DEFAULTS.keys() - sampler_kwargs.keys():
            raise ValueError(
                f"{SAMPLER_KEY} lacks {', '.join(sorted(missing))}: call verl_ext.config_defaults.complete_config first"
            )
        # `null`, as in older configs, means no filter.
        filters = sampler_kwargs.filter_groups or FilterGroupsConfig()
        refills = filters.enable or sampler_kwargs.sync_refill_failed_groups
        super().__init__(
            trainer_mode=trainer_mode,
            sampler_kwargs=sampler_kwargs,
            poll_interval=sampler_kwargs.poll_interval,
            filter_groups_metric=filters.metric if filters.enable else None,
            max_inflight_gen_batches=filters.max_inflight_gen_batches,
            train_batch_size=sampler_kwargs.train_batch_size,
            # veRL refills prompt by prompt.
            gen_batch_size=1 if refills else sampler_kwargs.gen_batch_size or sampler_kwargs.train_batch_size,
            sync_refill_failed_groups=sampler_kwargs.sync_refill_failed_groups,
            **kwargs,
        )
        # `reward_kwargs` of other reward managers have other keys.
        reward_kwargs = sampler_kwargs.reward_kwargs if sampler_kwargs.reward_manager in REWARDS else None
        self._voters = read_settings(reward_kwargs).vote_options.vote_n or sampler_kwargs.n
        # `refill_fn` is a bound method of the trainer.
        self._trainer = getattr(kwargs["refill_fn"], "__self__", None)
        self._watchdog = Watchdog(
            "fit", sampler_kwargs.watchdog_seconds, _actors_of_the_run, _pending_prompts, self._timed_phases
        )
        self._alarm = read_alarm(sampler_kwargs)
        self._votes = VoteFiles(
            Path(sampler_kwargs.votes), sampler_kwargs.votes_per_step, file_list(sampler_kwargs.train_files)
        )
        self._tables = GroupTables(**sampler_kwargs.tracked_groups, train_files=file_list(sampler_kwargs.train_files))
        self._settled: tuple[int, ...] = ()
        # Consecutive failed groups since the last finished group.
        self._failed = 0
        # The training step sampled last, and the majority ratio of each of its updates.
        self._step, self._shares = 0, list[float]()

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Sample as veRL does, and add vote metrics to the metrics of a training batch.

        `separate_async` samples `parameter_sync_step` times per step; the alarm gets the mean of these majority ratios.
        """
        if not self._watchdog.ident:
            self._watchdog.start()
        self._watchdog.progress()
        if partition_id == "train":
            self._alarm.before_training(global_steps)
            if self._step == 0:
                self._votes.continue_from(global_steps - 1)
        batch, metrics = super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
        self._watchdog.progress()
        if partition_id == "train":
            expected = batch_size * self._voters
            policies = _policies(batch)
            groups = _trained_groups(batch, policies)
            # There are no votes under other reward managers.
            if groups:
                metrics = metrics | vote_metrics([*groups.values()], expected)
            if self._votes.per_step != 0:
                kept = _groups_for_file(batch, groups, policies, self._votes.chosen)
                self._votes.add(global_steps, kept)
                self._log_table(global_steps, kept)
            if global_steps != self._step:
                self._step, self._shares = global_steps, []
            if metric_names.MAJORITY_RATIO in metrics:
                self._shares.append(metrics[metric_names.MAJORITY_RATIO])
                self._alarm.trained(global_steps, fmean(self._shares))
        else:
            self._votes.flush()
            self._alarm.validated(global_steps, _outcomes(batch))
        return batch, metrics

    def _log_table(self, step: int, groups: Sequence[GroupOnFile]) -> None:
        """Log a table of groups to the trackers that veRL has started, if it is due."""
        tracking = getattr(self._trainer, "logger", None)
        if tracking is not None and self._tables.is_due(step):
            self._tables.log(tracking.logger, [group.row(step) for group in groups], step)

    def _timed_phases(self) -> list[tuple[str, float]]:
        """Return the finished phases of the step with their seconds, which veRL measures for its metrics."""
        return list(getattr(self._trainer, "timing_raw", {}).items())

    def _evict_terminal_groups(
        self, global_steps: int, partition_id: str, eviction_reasons: tuple[set[str], set[str], set[str], Any]
    ) -> tuple[set[str], int, int, dict]:
        # veRL keeps replacing failed groups, so a run in which all groups fail would never end.
        _, _, failed, _ = eviction_reasons
        self._failed = 0 if self.finished_keys[partition_id] else self._failed + len(failed)
        if self._failed > self.train_batch_size:
            raise RuntimeError(
                f"{self._failed} groups have failed in a row, more than a step has prompts: the errors of their "
                "responses are in the log above"
            )
        return super()._evict_terminal_groups(global_steps, partition_id, eviction_reasons)

    def _wait_for_next_poll(self, partition_id: str, last_debug_time: float) -> float:
        keys = (self.finished_keys, self.failure_keys, self.partitions)
        settled = tuple(len(by_partition[partition_id]) for by_partition in keys)
        if settled != self._settled:
            self._settled = settled
            self._watchdog.progress()
        return super()._wait_for_next_poll(partition_id, last_debug_time)


class VoteReplayBufferAsync(VoteReplayBuffer, ReplayBufferAsync):
    """`VoteReplayBuffer` on top of veRL's `ReplayBufferAsync`, for all trainer modes except sync."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Sample as `VoteReplayBuffer` does, but first remove rows that were trained on before a restart.

        veRL saves the queue before it removes the rows of the step, so a resumed run would keep them forever.
        """
        if partition_id == "train" and self._step == 0:
            self._sync_metadata_from_transfer_queue()
            prompts = self.prompt_global_steps[partition_id]
            trained = [key for key in self.partitions[partition_id] if key.split("_")[0] not in prompts]
            if trained:
                tq.kv_clear(keys=trained, partition_id=partition_id)
        return super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
