"""Results as a dataset, opened by those who read datasets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from shunt.results import parquet
from shunt.results.dataset_card import dataset_card
from shunt.run.collect import collect
from shunt.run.manifest import Manifest
from shunt.run.partial import collect_partial
from shunt.run.verify import verify
from tests.shunt.run.nights import NOW, Nights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROMPTS = [{"id": n, "prompt": f"p{n}", "stars": n % 5, "tags": ["a"]} for n in range(50)]


def finished(nights: Nights, **output: Any) -> Manifest:
    place = {"path": str(nights.directory / "out"), "formats": ["dataset"], **output}
    manifest = nights.prepare([*PROMPTS, {"id": 50, "prompt": ""}], output=place)
    nights.generate(manifest)
    return manifest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of several files: every shard is a row group, and no file has more than a few."""
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 1)
    monkeypatch.setattr("shunt.run.collect._MB", 1 << 10)
    nights = Nights(tmp_path)
    manifest = finished(nights, max_file_mb=20)
    summary = collect(nights.store, manifest, now=NOW)
    assert verify(nights.store, manifest).problems == []
    made = Path(summary.directory) / "dataset"
    parts = sorted((made / "data").iterdir())
    assert len(parts) > 2
    assert all(part.stat().st_size < 60 << 10 for part in parts)  # 20, and footers of many groups
    return made


def expected() -> list[str | None]:
    return [*(f"0:{n}" for n in range(50)), None]


def test_datasets_reads_it(folder: Path, tmp_path: Path) -> None:
    import datasets

    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert list(read) == ["train"]
    rows = read["train"]
    assert rows["generated_text"][:] == expected()
    assert rows.features["stars"].dtype == "int64"


def test_duckdb_reads_it(folder: Path) -> None:
    import duckdb

    found = duckdb.connect().execute(
        f"select stars, count(*) from '{folder}/data/*.parquet' where error_code is null "
        "group by all order by all"
    )
    assert found.fetchall() == [(stars, 10) for stars in range(5)]


def test_pandas_reads_it(folder: Path) -> None:
    import pandas as pd

    table = pd.read_parquet(folder / "data")
    assert len(table) == 51
    assert table["generated_text"].tolist()[7] == "0:7"
    assert table["error_code"].tolist()[50] == "empty_prompt"


def test_polars_reads_it(folder: Path) -> None:
    import polars as pl

    table = pl.read_parquet(folder / "data" / "*.parquet")
    assert table["generated_text"].to_list() == expected()
    assert table.schema["stars"] == pl.Int64


def test_its_card_says_what_it_is(folder: Path) -> None:
    _, head, text = (folder / "README.md").read_text().split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert told["size_categories"] == ["n<1K"]
    assert "51 rows" in text
    assert "1 `empty_prompt`" in text
    assert str(folder.parent) not in text


def test_a_part_that_is_missing_or_changed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 1)
    monkeypatch.setattr("shunt.run.collect._MB", 1 << 10)
    nights = Nights(tmp_path)
    manifest = finished(nights, max_file_mb=20)
    summary = collect(nights.store, manifest, now=NOW)
    parts = sorted((Path(summary.directory) / "dataset/data").iterdir())
    data = parts[1].read_bytes()
    parts[1].unlink()
    assert any(
        "part-00001.parquet: is missing" in p for p in verify(nights.store, manifest).problems
    )
    collect(nights.store, manifest, now=NOW)
    assert parts[1].read_bytes() == data
    parts[1].write_bytes(parts[2].read_bytes())
    assert any("was changed" in problem for problem in verify(nights.store, manifest).problems)


def test_parts_of_another_size_leave_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 1)
    monkeypatch.setattr("shunt.run.collect._MB", 1 << 10)
    nights = Nights(tmp_path)
    manifest = finished(nights, max_file_mb=20)
    made = Path(collect(nights.store, manifest, now=NOW).directory) / "dataset/data"
    before = len(list(made.iterdir()))
    output = manifest.job.output.model_copy(update={"max_file_mb": 2000, "formats": ["dataset"]})
    job = manifest.job.model_copy(update={"output": output})
    (made / "part-00000.parquet").unlink()
    collect(nights.store, manifest.model_copy(update={"job": job}), now=NOW)
    assert [path.name for path in made.iterdir()] == ["part-00000.parquet"]
    assert before > 1


def test_the_finished_rows_of_a_run_are_a_table(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    place = {"path": str(tmp_path / "out"), "formats": ["dataset"]}
    manifest = nights.prepare(PROMPTS, output=place)
    partial = collect_partial(nights.store, manifest, now=NOW)
    assert [file.name for file in partial.files] == ["results.partial.parquet"]


def test_a_card_of_a_large_run_says_its_size(tmp_path: Path) -> None:
    job = Nights(tmp_path).job()
    counts = {"num_rows": 2_500_000, "num_output_tokens": 9, "errors": {}, "sampling_defaults": {}}
    assert "- 1M<n<10M\n" in dataset_card("r", job, **counts)
