"""Tests of the command `mmupt data`."""

from pathlib import Path

import pytest
from pictures import encode, picture
from PIL import Image

from mmupt.cli import main
from mmupt.datasets import data_sets


def test_it_says_what_was_written_and_what_was_dropped_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.png").write_bytes(picture())
    (tmp_path / "source" / "b.png").write_bytes(picture(1, size=(20, 4020)))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "source" / "c.jpg").write_bytes(encode(Image.new("RGB", (64, 48)), "JPEG", exif=exif))
    (tmp_path / "source" / "d.svg").write_text("<svg/>")
    (tmp_path / "source" / "e.mov").write_bytes(b"moving")
    (tmp_path / "source" / "f.mov").write_bytes(b"moving, too")
    arguments = ("images", "--source", str(tmp_path / "source"), "--output", str(tmp_path / "prepared"))
    main(["data", *arguments])
    output = capsys.readouterr().out
    assert f"{tmp_path / 'prepared'}: written" in output and "train.parquet: 2 rows, 1 dropped" in output
    first = "row 1, id images-train-000001, file b.png: image 0 has 20 x 4020 px"
    assert f"1 x extreme aspect ratio, the first: {first}" in output
    assert "1 image converted when decoded: orientation, the first: row 2, id images-train-000002, file c.jpg" in output
    assert "left out: 1 x .svg, the first: d.svg" in output
    assert "left out: 2 x .mov, the first: e.mov" in output
    main(["data", *arguments])
    assert "up to date" in capsys.readouterr().out


def test_an_error_is_one_line_and_an_exit_status(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="error: there is no data set 'nothing'"):
        main(["data", "nothing", "--output", str(tmp_path)])


def test_the_list_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(data_sets())
