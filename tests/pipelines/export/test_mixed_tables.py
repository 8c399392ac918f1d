"""Exports of tables whose codes were computed differently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from codectok import InputError
from codectok.exports.sequences.parquet import SequencesMetadata
from codectok.pipelines.engine.job import Job
from codectok.pipelines.export.compact import CompactJob, CompactOptions
from codectok.pipelines.export.documents import MegatronJob, SequencesJob
from codectok.pipelines.export.unitts import UnittsJob, UnittsOptions
from codectok.pipelines.verify.output import verify_output
from codectok.storage import open_storage
from codectok.tokens.table import METADATA_KEY
from tests.helpers.exports import CODEBOOK, ROWS, export, options
from tests.helpers.tables import metadata, write

H100 = "NVIDIA H100 80GB HBM3"
Make = Callable[[list[str], bool], Any]

JOBS: dict[str, Make] = {
    "sequences": lambda tables, mixed: SequencesJob(options(allow_mixed=mixed), tables),
    "megatron": lambda tables, mixed: MegatronJob(options(allow_mixed=mixed), tables),
    "unitts": lambda tables, mixed: UnittsJob(UnittsOptions(offset=400, allow_mixed=mixed), tables),
    "compact": lambda tables, mixed: CompactJob(CompactOptions(allow_mixed=mixed), tables[0]),
}


def write_table(path: Path, first: int, **changes: Any) -> Path:
    write(path, ROWS[first : first + 10], metadata(CODEBOOK, 1).model_copy(update=changes))
    return path


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("layout", ["one folder", "two tables"])
def test_mixed_tables_are_refused_unless_meant(kind: str, layout: str, tmp_path: Path) -> None:
    """Also if the difference is in another file than the first one of a table."""
    if (kind, layout) == ("compact", "two tables"):
        return  # it takes one table
    folder, other = tmp_path / "tokens", tmp_path / ("tokens" if layout == "one folder" else "more")
    write_table(folder / "part-000000.parquet", 0)
    write_table(folder / "part-000001.parquet", 10)
    write_table(other / "part-000002.parquet", 20, device=H100, pack_frames=8192)
    tables = [str(folder)] if layout == "one folder" else [str(folder), str(other)]
    make = JOBS[kind]
    with pytest.raises(InputError, match=rf"differ in device: cpu and {H100}; .*--allow-mixed"):
        make(tables, False)
    job: Job = make(tables, True)
    export(job, tmp_path / "out")  # type: ignore[arg-type]
    planned = json.loads((tmp_path / "out" / "_codectok" / "plan.json").read_text())["options"]
    assert (planned["device"], planned["mixed"]) == ("mixed", {"device": [H100, "cpu"]})
    if kind == "sequences":
        described = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata[METADATA_KEY]
        found = SequencesMetadata.model_validate_json(described)
        assert (found.dtype, found.device, found.mixed) == ("float32", "mixed", {"device": [H100, "cpu"]})
    if kind != "compact":  # its rows have no real lengths
        verify_output(open_storage(tmp_path / "out"))


@pytest.mark.parametrize("kind", JOBS)
def test_other_codec_is_refused_even_if_mixing_is_meant(kind: str, tmp_path: Path) -> None:
    write_table(tmp_path / "t" / "part-000000.parquet", 0)
    write_table(tmp_path / "t" / "part-000001.parquet", 10, codec_fingerprint="g")
    with pytest.raises(InputError, match=r"differ in codec: nano f and nano g; keep codes of different codecs apart"):
        JOBS[kind]([str(tmp_path / "t")], True)


def test_grown_table_is_checked_before_new_units_are_made(tmp_path: Path) -> None:
    write_table(tmp_path / "t" / "part-000000.parquet", 0)
    export(SequencesJob(options(), [str(tmp_path / "t")]), tmp_path / "out")
    write_table(tmp_path / "t" / "part-000001.parquet", 10, dtype="bfloat16")
    with pytest.raises(InputError, match="differ in dtype: float32 and bfloat16"):
        SequencesJob(options(), [str(tmp_path / "t")])


def test_voice_of_another_table_is_compared(tokenizer: Path, tmp_path: Path) -> None:
    write_table(tmp_path / "t" / "part-000000.parquet", 0)
    write_table(tmp_path / "voices.parquet", 20, dtype="bfloat16")
    voice = {"template": "tts", "tokenizer": str(tokenizer), "voice": f"{tmp_path}/voices.parquet#{ROWS[20].id}"}
    with pytest.raises(InputError, match="differ in dtype: float32 and bfloat16"):
        SequencesJob(options(**voice), [str(tmp_path / "t")])
    job = SequencesJob(options(**voice, allow_mixed=True), [str(tmp_path / "t")])
    assert job.options()["mixed"] == {"dtype": ["bfloat16", "float32"]}
