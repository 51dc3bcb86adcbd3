"""Reward workers hold the pseudo-label and the final rewards of a group against its ground truth."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from verl_ext.answers import Comparison
from verl_ext.datasets.ground_truth import sidecar_of
from verl_ext.rewards import diagnosis
from verl_ext.rewards.diagnosis import Diagnostician
from verl_ext.rewards.group_request import Diagnosis, DiagnosisRequest


def request(id_: str = "q1", own_truth: str | None = None, pseudo_label: str | None = "7") -> DiagnosisRequest:
    return DiagnosisRequest(id_, own_truth, ["7", "7.0", "3", None], [1.0, 1.0, 0.0, 0.0], pseudo_label, None)


@pytest.fixture
def diagnostician(tmp_path: Path) -> Diagnostician:
    train = tmp_path / "train.parquet"
    pq.write_table(pa.table({"id": ["q1", "q2"], "answer": ["7", "3"]}), sidecar_of(train))
    return Diagnostician([train], Comparison())


def test_the_ground_truth_of_a_row_is_that_of_its_sidecar_or_else_its_own(diagnostician: Diagnostician) -> None:
    assert diagnostician.diagnose(request("q1")) == Diagnosis(True, 1.0)
    # Both that are rewarded are wrong, and the one that is right is not rewarded.
    assert diagnostician.diagnose(request("q2", own_truth="7")) == Diagnosis(False, 0.25)
    assert diagnostician.diagnose(request("plain", own_truth="7")) == Diagnosis(True, 1.0)
    assert diagnostician.diagnose(request("plain")) == Diagnosis(None, None)


def test_a_group_that_elected_nothing_still_has_rewards_that_are_right_or_wrong(diagnostician: Diagnostician) -> None:
    assert diagnostician.diagnose(request(pseudo_label=None)) == Diagnosis(None, 1.0)


def test_every_different_answer_is_compared_once(diagnostician: Diagnostician, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str | None] = []
    monkeypatch.setattr(diagnosis, "correct", lambda answer, *rest: compared.append(answer) or False)
    answers: list[str | None] = ["7", "7", "3", None, None]
    diagnostician.diagnose(DiagnosisRequest("q1", None, answers, [0.0] * 5, "7", None))
    assert sorted(compared, key=str) == ["3", "7", None]


def test_a_sidecar_that_cannot_be_read_ends_the_start_of_a_reward_worker(tmp_path: Path) -> None:
    train = tmp_path / "train.parquet"
    pq.write_table(pa.table({"id": ["q1", "q1"], "answer": ["7", "3"]}), sidecar_of(train))
    with pytest.raises(ValueError, match="contradicts"):
        Diagnostician([train], Comparison())
