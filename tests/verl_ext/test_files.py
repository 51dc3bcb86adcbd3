"""Files and folders are written atomically."""

from pathlib import Path

import pytest

from verl_ext.files import replacing, sha256, write_atomically, write_json, write_json_lines


def test_a_file_is_replaced_atomically_and_its_folder_is_created(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.txt"
    write_atomically(file, "one")
    write_atomically(file, b"two")
    assert file.read_bytes() == b"two" and list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_failure_leaves_the_file_unchanged_and_nothing_beside_it(tmp_path: Path, concurrent: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_text("before")
    with pytest.raises(RuntimeError), replacing(file, concurrent=concurrent) as temporary:
        temporary.write_text("half")
        assert file.read_text() == "before"
        raise RuntimeError
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_a_folder_replaces_the_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    folder, left = tmp_path / "model", tmp_path / "model.tmp"
    left.mkdir()
    (left / "of_a_killed_process").touch()
    with replacing(folder) as temporary:
        temporary.mkdir()
        (temporary / "weights").touch()
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("model"), Path("model/weights")]


def test_lone_surrogates_are_replaced_or_escaped(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.md", "½ \ud835")
    assert (tmp_path / "a.md").read_text() == "½ ?"
    write_json_lines(tmp_path / "a.jsonl", ["\ud835", 1])
    assert (tmp_path / "a.jsonl").read_text() == '"\\ud835"\n1\n'


def test_json_is_written_with_its_final_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2}, sort_keys=True)
    assert (tmp_path / "a.json").read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'


def test_sha256_digests_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
