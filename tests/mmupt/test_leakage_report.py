"""The leakage guard counts overlapping rows, shows them on a page, and refuses more than the allowed number."""

import json
from pathlib import Path

import pytest
from leakage_rows import LONG, SHORT, write

from benchmarks.random_groups import drawing, encode, photo
from mmupt.cli import main
from mmupt.reports.leakage_report import check_overlap


def two_overlaps(folder: Path) -> tuple[Path, Path]:
    hostile = "</p><script>alert(1)</script><img src=x onerror=alert(2)> " + LONG
    rows = [(hostile, [encode(drawing(1))]), (SHORT, [encode(photo(1))]), (SHORT, [encode(photo(2))])]
    train = write(folder / "train.parquet", rows)
    return train, write(folder / "test <b>" / "test.parquet", rows[:2])


def test_more_overlaps_than_allowed_are_an_error_with_counts_rows_and_the_report(tmp_path: Path) -> None:
    train, test = two_overlaps(tmp_path)
    with pytest.raises(ValueError) as refusal:
        check_overlap([train], [test], "near", 1, tmp_path / "report")
    assert str(refusal.value) == (
        "2 overlapping pairs of a training row and an evaluation row (image exact: 2, question exact: 1), first "
        f"0 of {train} ('train-0') and 0 of {test} ('test-0'); 1 of {train} ('train-1') and 1 of {test} ('test-1'); "
        f"at most 1 may overlap. The report is {tmp_path / 'report' / 'leakage.html'}"
    )
    assert len(check_overlap([train], [test], "near", 2, tmp_path / "report")) == 2


def test_the_json_report_has_every_pair(tmp_path: Path) -> None:
    train, test = two_overlaps(tmp_path)
    check_overlap([train], [test], "exact", 5, tmp_path)
    report = json.loads((tmp_path / "leakage.json").read_text())
    assert report["kinds"] == {"image exact": 2, "image near": 0, "question exact": 1, "question near": 0}
    assert (report["pairs"], report["allowed"], report["images"]) == (2, 5, "exact")
    assert report["overlaps"][1] == {
        "train": {"file": str(train), "row": 1, "id": "train-1"},
        "evaluation": {"file": str(test), "row": 1, "id": "test-1"},
        "kinds": ["image exact"],
    }


def test_the_page_shows_images_and_escapes_markup_of_the_data(tmp_path: Path) -> None:
    train, test = two_overlaps(tmp_path)
    check_overlap([train], [test], "near", 2, tmp_path)
    page = (tmp_path / "leakage.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page and "src=x" not in page.replace("&lt;img src=x", "") and "<b>" not in page
    assert page.count('<img alt="image of the question" src="data:image/') == 4
    assert "://" not in page and "default-src 'none'" in page


def test_the_page_shows_rows_whose_images_cannot_be_decoded(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.parquet", [(LONG, [b"no image"])]) for name in ("train", "test")]
    (overlap,) = check_overlap(files[:1], files[1:], "near", 1, tmp_path)
    assert overlap.kinds == ("question exact",)
    assert (tmp_path / "leakage.html").read_text().count("an image that cannot be decoded") == 2


@pytest.mark.parametrize(("allowed", "status"), [("2", 0), ("1", 1)])
def test_the_exit_status_tells_whether_more_rows_overlap_than_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], allowed: str, status: int
) -> None:
    train, test = two_overlaps(tmp_path)
    report = tmp_path / "report"
    arguments = ["--train", train, "--eval", test, "--report", report, "--allowed", allowed]
    assert main(["check-leakage", *map(str, arguments)]) == status
    output = capsys.readouterr().out
    assert "2 overlapping pairs" in output and f"at most {allowed} may overlap" in output
    assert (report / "leakage.html").exists()


def test_a_missing_file_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = str(tmp_path / "absent.parquet")
    with pytest.raises(SystemExit) as exit_:
        main(["check-leakage", "--train", absent, "--eval", absent, "--report", str(tmp_path)])
    assert exit_.value.code == 2
    assert "absent.parquet" in capsys.readouterr().err
