"""Everything that pages and comments name exists: links, headings, files, modules, config keys, commands, targets."""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from mmupt.cli import COMMANDS
from mmupt.compose import OPEN_KEYS, load_recipe

ROOT = Path(__file__).parent.parent
SOURCES = {"verl_ext": "verl_ext", "mmupt": "recipes/mmupt", "mmupt_data": "data/mmupt_data"}
# A path in this repository; excludes folders of veRL, which also has examples/ and docs/.
FILE = re.compile(
    r"(?<![\w/.-])(?!examples/(?:grpo_trainer|data_preprocess|tuning)/|docs/(?:perf|advance|start)/)"
    r"(?:verl_ext|recipes|data/mmupt_data|docs|tests|benchmarks|scripts|examples)/[\w./-]*\.[a-z]+\b"
)
MODULE = re.compile(r"(?:`|python -m )((?:verl_ext|mmupt|mmupt_data)(?:\.\w+)+)")
KEY = re.compile(r"`\+?((?:actor_rollout_ref|data|trainer|reward|algorithm|critic|mmupt)\.[\w.]*\w)(?:=[^`]*)?`")
CODE = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)
PYTHON_FILE = re.compile(r"`([a-zA-Z][\w/-]*\.py)`")
# Files of veRL, EasyR1 and the papers' repositories that our pages name.
FOREIGN = {
    "examples/config.yaml",
    "examples/qwen2_5_vl_7b_geo3k_grpo.sh",
    "examples/reward_function/caller_penalty.py",
    "train_examples/reward_function/cot_val.py",
    "vllm_service_init/start_vllm_server.py",
    "examples/qwen2_5_vl_7b_mmr1.sh",
    "examples/qwen3_vl_4b_geo3k_grpo_lora.sh",
    "examples/ttrl/aime.sh",
    "scripts/model_merger.py",
    "verl/trainer/config.py",
    "verl/trainer/ray_trainer.py",
    "verl/utils/dataset.py",
    "verl/verl/workers/reward_manager/ttrl.py",
    "verl/workers/reward/function.py",
    "vllm_async_server.py",
    "ttt_metrics.py",
    "verl/trainer/ppo/ray_trainer.py",
    "verl/trainer/ppo/scrl_utils.py",
    "verl/trainer/ppo/ttrl_utils.py",
    "verl/utils/reward_score/major_vote_score.py",
    "verl/workers/engine/fsdp/transformer_impl.py",
    "verl/workers/reward_manager/semantic_novelty.py",
    "verl/workers/reward_manager/verifier.py",
    "build_query.py",
    "dataset/image_mcq.py",
    "evaluation/build_query.py",
    "evaluation/extract_answer.py",
    "evaluation/four_dimensional_metrics.py",
    "extract_answer.py",
    "lora/model_manager.py",
    "models/Qwen-VL.py",
    "models/transformers/qwen2_vl.py",
    "stic/generate_pref.py",
    "ttrl_utils.py",
    "utils.py",
    "verl/utils/torch_functional.py",
    "verl/utils/tracking.py",
    "verl/utils/transferqueue_utils.py",
    "vllm/model_executor/models/qwen2_vl.py",
}
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


PAGES = [page for page in _tracked("*.md") if page.name != "CHANGELOG.md"]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub derives from a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _exists(module: str) -> bool:
    """Whether a dotted name is one of our modules, or a name defined in one."""
    package, *names = module.split(".")
    path = ROOT / SOURCES[package]
    for number, name in enumerate(names):
        if (path / name).is_dir():
            path /= name
            continue
        file = path / f"{name}.py"
        if file.is_file():
            rest = names[number + 1 :]
        else:
            file, rest = path / "__init__.py", names[number:]
        return not rest or re.search(rf"\b{rest[0]}\b", file.read_text()) is not None
    return True


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{_name(page)} links to {link}"
        assert not anchor or anchor in _anchors(target), f"{_name(page)} links to {link}: no such heading"


@pytest.mark.parametrize("pattern", ["*.md", "*.yaml", "*.py", "Makefile", "*.toml", "*.sh"])
def test_named_files_exist(pattern: str) -> None:
    missing = [
        f"{_name(source)}: {file}"
        for source in _tracked(pattern)
        if source.name != "CHANGELOG.md"
        for file in FILE.findall(source.read_text())
        if file not in FOREIGN and not (ROOT / file).exists()
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_files_named_by_the_end_of_their_path_exist(page: Path) -> None:
    ours = [f"/{_name(file)}" for file in _tracked("*.py")]
    for file in set(PYTHON_FILE.findall(page.read_text())) - FOREIGN:
        assert any(path.endswith(f"/{file}") for path in ours), f"{_name(page)} names {file}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_named_modules_exist(page: Path) -> None:
    # Config keys also start with mmupt.
    keys = set(re.findall(r"^  (\w+):", (ROOT / "recipes/mmupt/config/base.yaml").read_text(), re.MULTILINE))
    for module in MODULE.findall(page.read_text()):
        package, name = module.split(".")[:2]
        if package != "mmupt" or name not in keys:
            assert _exists(module), f"{_name(page)} names {module}"


@pytest.fixture(scope="module")
def configs() -> list[DictConfig]:
    """A GRPO recipe and a baseline recipe, which together have all keys."""
    return [load_recipe("mmupt_mathvista")[0], load_recipe("mmupt_geometry3k", ["method=lmsi"])[0]]


# migration.md also names keys of other programs; tests/test_docs_site.py checks ours there.
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "migration.md"], ids=_name)
def test_config_keys_exist(page: Path, configs: list[DictConfig]) -> None:
    for key in KEY.findall(page.read_text()):
        if key.partition(".")[0] == "mmupt" and _exists(key):
            # It is a module.
            continue
        parent, _, name = key.rpartition(".")
        blocks = [OmegaConf.select(config, parent) for config in configs]
        exists = any(isinstance(block, DictConfig) and name in block for block in blocks)
        assert exists or key.startswith(OPEN_KEYS), f"{_name(page)} names the key {key}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|    )make ([a-z-]+)", page.read_text()))
    assert named <= targets, f"{_name(page)} names {named - targets}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_subcommands_exist(page: Path) -> None:
    named = set(re.findall(r"(?:`|bin/|    )mmupt ([a-z-]+)", page.read_text()))
    assert named <= COMMANDS.keys(), f"{_name(page)} names {named - COMMANDS.keys()}"


def _train_commands() -> list[tuple[str, ...]]:
    """Recipe and overrides of every `make train` in inline code; test_doc_commands.py checks blocks."""
    commands = set()
    for page in PAGES:
        for line in re.findall(r"`make train([^`\n]*)", page.read_text()):
            settings = dict(word.split("=", 1) for word in shlex.split(line, comments=True) if "=" in word)
            commands.add((settings.get("RECIPE", "mmupt_tiny"), *shlex.split(settings.get("ARGS", ""))))
    return sorted(command for command in commands if command[0] != "my_recipe")


@pytest.mark.parametrize("command", _train_commands(), ids=" ".join)
def test_train_commands_compose(command: tuple[str, ...]) -> None:
    recipe, *overrides = command
    load_recipe(recipe, overrides)
