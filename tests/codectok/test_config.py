from __future__ import annotations

from pathlib import Path

import pytest

from codectok.config import PRESETS, CodecConfig, named_codec_config, parse, preset
from codectok.errors import ConfigError

ODD_HOP = {"hop_length": 255, "win_length": 1021, "n_fft": 1021}


def test_presets_have_published_sizes() -> None:
    student, teacher = preset("distilcodec-v1"), preset("distilcodec-teacher")
    assert (student.quantizer.n_codebooks, student.quantizer.codebook_size) == (1, 32_768)
    assert (teacher.quantizer.n_codebooks, teacher.quantizer.codebook_size) == (32, 1024)
    assert student.frame_rate == 93.75
    assert student.frame_size == 256


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_preset_round_trips_through_file(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"codec{suffix}"
    path.write_text(preset(name).model_dump_json())  # JSON is YAML
    assert named_codec_config(str(path)) == preset(name)


def test_unknown_key_error_suggests_key() -> None:
    with pytest.raises(ConfigError, match=r"my\.yaml: unknown key 'encoder\.depht' \(did you mean 'depths'\?\)"):
        parse(CodecConfig, {"encoder": {"depht": [1]}}, "my.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"decoder": {"upsample_rates": [8, 4, 2, 2, 4]}}, "multiply to 512"),
        ({"quantizer": {"type": "grvq", "n_groups": 3}}, "cannot be split into 3 groups"),
        ({"encoder": {"dims": [8, 16]}}, "same, non-zero number"),
        ({"mel": {"f_max": 16_000}}, "f_max"),
        ({"quantizer": {"type": "magic"}}, "quantizer"),
        ({"quantizer": {"n_groups": 3}}, "the key 'type' is missing"),
        ({"quantizer": {"type": "grvq", "n_group": 3}}, r"'quantizer\.n_group'"),
        ({"decoder": {"upsample_kernel_sizes": [16, 12, 4, 4, 5]}}, "even number"),
        ({"decoder": {"resblock_kernel_sizes": [], "resblock_dilations": []}}, "at least one entry"),
        ({"mel": ODD_HOP, "decoder": {"type": "istft", "n_fft": 1020}}, "even hop"),
    ],
)
def test_inconsistent_sizes_are_refused(data: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(CodecConfig, data, "my.yaml")


@pytest.mark.parametrize(("text", "message"), [("- 1", "keys and values"), ("a: [", "cannot be parsed")])
def test_config_file_without_mapping_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "codec.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        named_codec_config(str(path))


def test_left_pad_of_a_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match="left_pad 256 must be below the hop"):
        parse(CodecConfig, {"left_pad": 256}, "test")


@pytest.mark.parametrize(("n_samples", "n_frames"), [(1, 1), (255, 1), (256, 1), (511, 1), (512, 2), (24_000, 93)])
def test_n_frames_of_n_samples(n_samples: int, n_frames: int) -> None:
    assert preset("distilcodec-v1").n_frames(n_samples) == n_frames
