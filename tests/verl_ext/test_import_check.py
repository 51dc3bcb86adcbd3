"""Missing or failing code that a configuration names is reported before anything starts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from verl_ext.import_check import problems_of_code

SCORE = "def score(data_source, solution_str, ground_truth, extra_info):\n    return 0.0\n"


def config(keys: Mapping[str, Any]) -> DictConfig:
    """Add `keys` to veRL's keys that name code."""
    result = OmegaConf.create(
        {
            "reward": {"reward_manager": {"source": "register", "name": "naive"}},
            "actor_rollout_ref": {"rollout": {"agent": {"default_agent_loop": "single_turn_agent"}}},
        }
    )
    for key, value in keys.items():
        OmegaConf.update(result, key, value, force_add=True)
    return result


def problems(**keys: Any) -> str:
    return "\n".join(problems_of_code(config({key.replace("__", "."): value for key, value in keys.items()})))


def problems_of_function(file: Path, name: str = "score", **keys: Any) -> str:
    function = {"path": str(file), "name": name}
    return problems(reward__custom_reward_function=function, **keys)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "reward.py"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"reward.custom_reward_function.path=FILE: there is no such file"),
        ("def scor(:\n", "custom_reward_function.path=FILE: it is not Python: invalid syntax"),
        (SCORE.replace("score", "scores"), "name=score: FILE does not define it; did you mean 'scores'?"),
        (
            "import nosuch\n" + SCORE,
            "path=FILE: importing it raises ModuleNotFoundError: .* 'nosuch'",
        ),
        (SCORE + "1 / 0\n", "importing it raises ZeroDivisionError"),
        (SCORE + "raise SystemExit('no licence')\n", r"importing it ends the process \(1\): no licence"),
        (SCORE + "import os\nos._exit(3)\n", r"importing it ends the process \(3\)"),
        (SCORE + "del score\n", "name=score: FILE does not define it"),
        ("score = 1\n", "it is not a function"),
        (
            "def score(solution, truth):\n    pass\n",
            "called as data_source=, .*: 'solution'",
        ),
    ],
)
def test_a_reward_function_that_cannot_be_called_is_refused(source: str | None, message: str, file: Path) -> None:
    if source is not None:
        file.write_text(source)
    with pytest.raises(AssertionError, match=message.replace("FILE", str(file))):
        assert not problems_of_function(file)


@pytest.mark.parametrize(
    "source",
    [
        SCORE,
        "async " + SCORE,
        "print('loading')\nscore = lambda **response: 0.0\n",
        "class Score:\n    def __call__(self, **response):\n        return 0.0\nscore = Score()\n",
        "globals()['score'] = lambda **response: 0.0\n",
        "def __getattr__(name):\n    return lambda **response: 0.0\n",
    ],
)
def test_anything_that_verl_can_call_is_accepted_as_a_reward_function(source: str, file: Path) -> None:
    file.write_text(source)
    assert not problems_of_function(file)


def test_an_empty_path_means_no_reward_function_as_in_verl() -> None:
    assert not problems(reward__custom_reward_function={"path": "", "name": "compute_score"})


def test_a_reward_function_is_called_with_its_own_arguments(file: Path) -> None:
    file.write_text(SCORE.replace("extra_info", "extra_info, scale"))
    assert "missing a required argument: 'scale'" in problems_of_function(file)
    keys = {"path": str(file), "name": "score", "reward_kwargs": {"scale": 2}}
    assert not problems(reward__custom_reward_function=keys)
    # A custom reward manager may call it differently.
    (file.parent / "manager.py").write_text("class Manager: pass\n")
    custom = {"source": "importlib", "name": "Manager", "module": {"path": str(file.parent / "manager.py")}}
    assert not problems_of_function(file, reward__reward_manager=custom)


def test_a_reward_manager_is_looked_up_in_its_file(file: Path) -> None:
    file.write_text("class Manager: pass\n")
    custom = {"source": "importlib", "name": "Manger", "module": {"path": str(file), "name": "custom_reward_manager"}}
    assert f"reward.reward_manager.name=Manger: {file} does not define it; did you mean 'Manager'?" in problems(
        reward__reward_manager=custom
    )
    assert not problems(reward__reward_manager={**custom, "name": "Manager"})
    # The plugin's rewards are in no file; another check reports that with the key to change.
    assert not problems(reward__reward_manager={**custom, "name": "majority_vote"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such.Manager", "=no_such.Manager: there is no such module"),
        ("Manager", "=Manager: there is no such module"),
        ("verl_ext.rollout.agent_lop.GroupAgentLoopManager", "there is no such module"),
        (
            "verl_ext.rollout.agent_loop.GroupAgentLoopManger",
            "does not define it; did you mean 'GroupAgentLoopManager'?",
        ),
        ("broken.Manager", "=broken.Manager: importing it raises ImportError: no GPU"),
    ],
)
def test_an_agent_loop_manager_that_cannot_be_imported_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text("class Manager: pass\nraise ImportError('no GPU')\n")
    monkeypatch.syspath_prepend(tmp_path)
    key = "actor_rollout_ref.rollout.agent.agent_loop_manager_class"
    report = "\n".join(problems_of_code(config({key: name})))
    assert report.startswith(key)
    with pytest.raises(AssertionError, match=message.replace("?", r"\?")):
        assert not report


def test_modules_are_found_where_the_workers_find_them(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("import os\nassert os.environ['LICENCE'] == '7'\n")
    library = {"actor_rollout_ref__model__external_lib": "only_there"}
    assert "external_lib=only_there: there is no such module" in problems(**library)
    variables = {"PYTHONPATH": str(tmp_path), "LICENCE": 7}
    assert not problems(**library, ray_kwargs__ray_init__runtime_env__env_vars=variables)
    # Ray brings them.
    assert not problems(**library, ray_kwargs__ray_init__runtime_env__working_dir=str(tmp_path))


def test_a_name_is_refused_if_modules_that_may_register_it_cannot_be_imported() -> None:
    message = problems(
        algorithm__adv_estimator="mine",
        ray_kwargs__ray_init__runtime_env__env_vars={"VERL_USE_EXTERNAL_MODULES": "no_such_module"},
    )
    assert "algorithm.adv_estimator=mine: " in message and "no_such_module" in message


def test_agent_loops_are_looked_up_in_their_file(tmp_path: Path) -> None:
    key, file = "actor_rollout_ref__rollout__agent__agent_loop_config_path", tmp_path / "loops.yaml"
    assert "agent_loop_config_path=nosuch.yaml: there is no such file" in problems(**{key: "nosuch.yaml"})
    file.write_text("name: mine\n")
    assert "it must be a list of agent loops" in problems(**{key: str(file)})
    file.write_text("- name: mine\n  _target_: verl_ext.rollout.shared_prompt.SharedPromptAgent\n")
    assert ": mine._target_=verl_ext" in (message := problems(**{key: str(file)}))
    assert "did you mean 'SharedPromptAgentLoop'?" in message
    file.write_text("- name: mine\n  _target_: verl_ext.rollout.shared_prompt.SharedPromptAgentLoop\n")
    assert not problems(**{key: str(file)}, actor_rollout_ref__rollout__agent__default_agent_loop="mine")


def test_problems_of_all_code_are_reported_together(file: Path, tmp_path: Path) -> None:
    file.write_text("raise ValueError('first')\nscore = 1\n")
    (tmp_path / "rows.py").write_text("class Rows: pass\nraise ValueError('second')\n")
    message = problems_of_function(
        file,
        data__custom_cls={"path": str(tmp_path / "rows.py"), "name": "Rows"},
        trainer__checkpoint_callback_class="no_such.Callback",
        trainer__v1__sampler__custom_sampler={"path": None, "name": None},
    )
    assert len(message.splitlines()) == 3
    assert all(part in message for part in ("ValueError: first", "ValueError: second", "no_such.Callback: there is no"))
