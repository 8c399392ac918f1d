"""Pretraining data for UniTTS, byte by byte."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from codectok import InputError
from codectok.exports.choices import UnittsTask
from codectok.exports.sequences.documents import MissingFieldError
from codectok.exports.unitts import COLUMNS, audio_file, check_unitts, dialog_row
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

VOCABULARY = Vocabulary(32_768)
ROW = TokenRow(
    "id", "a/ü.wav", "d", 1.5, 0.5, 12_000, np.array([[0], [32_767]], np.uint16), text="Grüß dich", speaker="ann"
)
AUDIO = {
    "type": "audio_text",
    "content": "<|audio|>",
    "audio_infos": {
        "audio_tokens": [152_064, 184_831],
        "text": "Grüß dich",
        "sampling_rate": 24_000,
        "duration": 0.5,
        "voice_name": "ann",
        "raw_audio": None,
        "wer": None,
        "use_text": True,
    },
}
TEXT = {"type": "text", "content": "Grüß dich"}


@pytest.mark.parametrize(
    ("task", "turns"), [(UnittsTask.TTS, [TEXT, AUDIO]), (UnittsTask.ASR, [AUDIO, TEXT]), (UnittsTask.AUDIO, [AUDIO])]
)
def test_dialog_row_matches_recipe(task: UnittsTask, turns: list[object]) -> None:
    row = dialog_row(ROW, VOCABULARY, task, 24_000)
    assert tuple(row) == COLUMNS
    assert all(isinstance(value, str) for value in row.values())
    assert json.loads(row["dialog"]) == [{"name": "user", "type": "user", "content_list": turns}]
    assert row["task"] == task
    assert json.loads(row["other_info"])["id"] == "id"


def ids_of_the_reference(content_list: list[dict]) -> list[object]:
    """Encode a dialogue as UniTTS's reader does, by the description of its format; texts are kept as strings."""
    ids: list[object] = []
    for turn in content_list:
        if turn["type"] == "text":
            ids.append(turn["content"])
        elif turn["type"] == "audio_text":
            before, marker, after = turn["content"].partition("<|audio|>")
            assert marker
            ids += [before] if before else []
            ids += ["<|inter_audio_begin|>", *turn["audio_infos"]["audio_tokens"], "<|inter_audio_end|>"]
            ids += [after] if before and after else []
    return ids


def test_reference_reader_returns_text_and_audio_in_order() -> None:
    (turn,) = json.loads(dialog_row(ROW, VOCABULARY, UnittsTask.TTS, 24_000)["dialog"])
    expected = ["Grüß dich", "<|inter_audio_begin|>", 152_064, 184_831, "<|inter_audio_end|>"]
    assert ids_of_the_reference(turn["content_list"]) == expected


def test_audio_file_is_one_json_line() -> None:
    text = audio_file(ROW, VOCABULARY)
    assert text == '{"audio_path": "a/ü.wav", "audio_token": [152064, 184831]}\n'


def test_row_without_text_needs_audio_task() -> None:
    silent = replace(ROW, text=None)
    for task in (UnittsTask.TTS, UnittsTask.ASR):
        with pytest.raises(MissingFieldError, match="no text"):
            dialog_row(silent, VOCABULARY, task, 24_000)
    ((turn,),) = (json.loads(dialog_row(silent, VOCABULARY, UnittsTask.AUDIO, 24_000)["dialog"]),)
    assert turn["content_list"][0]["audio_infos"]["use_text"] is False


def test_unknown_task_or_style_is_refused() -> None:
    for task, style, message in (
        ("chat", "parquet", "'chat'"),
        ("tts", "tar", "'tar'"),
        ("tts", "audio-json", "needs --style parquet"),
    ):
        with pytest.raises(InputError, match=message):
            check_unitts(task, style)
