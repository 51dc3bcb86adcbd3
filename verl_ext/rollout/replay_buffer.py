"""veRL's replay buffer plus vote metrics, votes on file, a watchdog and the collapse alarm: `custom_sampler`.

`sample()` is where veRL merges extra metrics into those of the step, in every logger, where it waits for rollouts, and
the one place that sees the rows of both training and validation.
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
    """The values of a non-tensor field; empty if the rows do not have it."""
    # Depending on how the column was stored, its elements are wrapped or plain.
    return [getattr(value, "data", value) for value in data[field]] if field in data.keys() else []


def _final_outputs(batch: KVBatchMeta, *fields: str) -> tuple[list[str], Any]:
    """The sessions of a batch and these fields of each one's last output; all its outputs carry the same score."""
    ordered = sorted(batch.keys, key=lambda key: int(key.rsplit("_", 1)[1]))
    final = {key.rsplit("_", 1)[0]: key for key in ordered}
    data = tq.kv_batch_get(keys=list(final.values()), partition_id=batch.partition_id, select_fields=list(fields))
    return list(final), data


def _policies(batch: KVBatchMeta) -> dict[str, tuple[int, int]]:
    """The first and last policy that sampled each group, in training steps, by the uid of its prompt."""
    versions: dict[str, list[int]] = defaultdict(list)
    for key, tag in zip(batch.keys, batch.tags, strict=True):
        # Other rollout engines than vLLM may not report their version.
        known = (tag.get("min_global_steps"), tag.get("max_global_steps"))
        versions[key.split("_")[0]] += [version for version in known if version is not None]
    return {uid: (min(steps), max(steps)) for uid, steps in versions.items() if steps}


def _reward_infos(data: Any) -> list[dict[str, Any]]:
    return [fields.get("reward_extra_info", {}) for fields in _values(data, "extra_fields")]


def _outcomes(batch: KVBatchMeta) -> dict[str, list[float]]:
    """The accuracy of each response of a validation batch, by question.

    Empty if another reward manager scored it without `acc`, or another agent loop manager left rows without an id.
    """
    outcomes: dict[str, list[float]] = defaultdict(list)
    if batch.keys:
        _, data = _final_outputs(batch, "id", "extra_fields")
        for question, info in zip(_values(data, "id"), _reward_infos(data), strict=False):
            if "acc" in info:
                outcomes[str(question)].append(float(info["acc"]))
    return outcomes


def _trained_groups(batch: KVBatchMeta, policies: Mapping[str, tuple[int, int]]) -> dict[str, TrainedGroup]:
    """The groups of a training batch by the uid of their prompts; none where another reward manager scored it."""
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
    """The groups of a training batch that go on file, chosen by the ids of their questions."""
    # The row of the first response holds the whole group.
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
        # Rows of a queue that was saved without votes on file have none.
        for uid, voted in zip(chosen, _values(data, VOTED_QUESTION), strict=False)
        if voted
    ]


def _pending_prompts() -> str:
    """What prompts wait for, with counts and some ids, from the tags of the agent loop worker."""
    waiting: dict[str, list[str]] = defaultdict(list)
    for tags in (tq.kv_list() or {}).values():
        for tag in tags.values():
            if tag.get("is_prompt") and tag["status"] in ("pending", "running"):
                waiting[tag.get("phase", "their agent loop worker")].append(tag.get("id", "?"))
    if not waiting:
        return "no prompt is pending, the trainer itself waits"
    return "; ".join(
        f"{pluralize(len(ids), 'prompt waits', 'prompts wait')} for {phase}: "
        f"{', '.join(sorted(ids)[:5])}{', ...' if len(ids) > 5 else ''}"
        for phase, ids in sorted(waiting.items())
    )


# The namespace of TransferQueue's controller (transfer_queue/interface.py); its storage is in that of the run.
QUEUE_NAMESPACE = "transfer_queue"


def _actors_of_the_run() -> set[str]:
    """Names of the live actors of this run, without those of other runs in the same Ray cluster."""
    namespaces = (ray.get_runtime_context().namespace, QUEUE_NAMESPACE)
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["namespace"] in namespaces}


class VoteReplayBuffer(ReplayBuffer):
    """veRL's replay buffer of the trainer mode, reporting `vote/*`; sampling itself is veRL's.

    `trainer.v1.sampler.sampler_kwargs` holds the keys of `verl_ext.config_defaults.SAMPLER_DEFAULTS`, which are filled
    in before veRL's trainer starts. The accuracy of pseudo-labels and rewards comes with the responses, see
    `verl_ext.rewards.accuracy`. On a collapse, see `read_alarm`, `sample` raises StoppedOnCollapse instead of starting
    another training step.

    Raises:
        ValueError: keys that are missing.
    """

    def __new__(cls, *, trainer_mode: str, **kwargs: Any) -> "VoteReplayBuffer":
        """Return veRL's asynchronous buffer with the same additions unless the trainer is synchronous."""
        return super().__new__(cls if trainer_mode == "sync" else VoteReplayBufferAsync)

    def __init__(self, *, trainer_mode: str, sampler_kwargs: Any, **kwargs: Any) -> None:
        if missing := SAMPLER_DEFAULTS.keys() - sampler_kwargs.keys():
            raise ValueError(
                f"{SAMPLER_KEY} lacks {', '.join(sorted(missing))}: call verl_ext.config_defaults.complete_config first"
            )
        # Null, as in older configurations, is no filter.
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
        # The options of other reward managers are their own.
        reward_kwargs = sampler_kwargs.reward_kwargs if sampler_kwargs.reward_manager in REWARDS else None
        self._voters = read_settings(reward_kwargs).vote_options.vote_n or sampler_kwargs.n
        # A bound method of the trainer.
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
        # Failed groups since the last one that finished.
        self._failed = 0
        # The training step that was sampled last, and the majority ratio of each of its updates.
        self._step, self._shares = 0, list[float]()

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Sample as veRL does, and add the metrics of the votes to those of a training batch.

        `separate_async` samples `parameter_sync_step` times per step, whose shares of the vote are averaged.
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
            # Nothing has voted under other reward managers.
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
        """Log some groups to the trackers that veRL has started."""
        tracking = getattr(self._trainer, "logger", None)
        if tracking is not None and self._tables.is_due(step):
            self._tables.log(tracking.logger, [group.row(step) for group in groups], step)

    def _timed_phases(self) -> list[tuple[str, float]]:
        """The phases of the step that have finished, with their seconds, which veRL times for its metrics."""
        return list(getattr(self._trainer, "timing_raw", {}).items())

    def _evict_terminal_groups(
        self, global_steps: int, partition_id: str, eviction_reasons: tuple[set[str], set[str], set[str], Any]
    ) -> tuple[set[str], int, int, dict]:
        # veRL replaces failed groups endlessly, so a run in which all groups fail would never end.
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
    """The same for veRL's `ReplayBufferAsync`; `VoteReplayBuffer` makes one for each trainer mode other than sync."""

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[KVBatchMeta, dict]:
        """Sample as `VoteReplayBuffer` does; first remove rows that a run before a restart has trained on.

        veRL saves the queue before it removes the rows of the step, so a resumed run would hold them forever.
        """
        if partition_id == "train" and self._step == 0:
            self._sync_metadata_from_transfer_queue()
            prompts = self.prompt_global_steps[partition_id]
            trained = [key for key in self.partitions[partition_id] if key.split("_")[0] not in prompts]
            if trained:
                tq.kv_clear(keys=trained, partition_id=partition_id)
        return super().sample(global_steps=global_steps, partition_id=partition_id, batch_size=batch_size)
