"""The forms of pretraining data that UniTTS reads: dialogues in Parquet, and a `.audio` file for each clip."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

import pyarrow as pa

from codectok.errors import InputError
from codectok.exports.sequences.documents import MissingPartError
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

UnittsTask = Literal["audio", "tts", "asr"]
UnittsStyle = Literal["parquet", "audio-json"]
AUDIO_MARKER = "<|audio|>"
COLUMNS = ("dialog", "user_info", "role_info", "dialog_type", "task", "task_category", "other_info")
UNITTS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])


def check_unitts(task: str, style: str) -> None:
    """Refuse what UniTTS has no form for."""
    for value, known in ((task, get_args(UnittsTask)), (style, get_args(UnittsStyle))):
        if value not in known:
            raise InputError(f"UniTTS has no form for {value!r}; choose one of {', '.join(known)}.")
    if style == "audio-json" and task != "audio":
        raise InputError(f"A `.audio` file holds audio alone; --task {task} needs --style parquet.")


def dialog_row(row: TokenRow, vocabulary: Vocabulary, task: UnittsTask, sample_rate: int) -> dict[str, str]:
    """A row of the seven columns; `MissingPartError` if it has no text and the task needs one."""
    audio = _audio_turn(row, vocabulary, sample_rate)
    if task != "audio" and not row.text:
        raise MissingPartError(f"The row {row.id} has no text.")
    text = {"type": "text", "content": row.text}
    content = {"audio": [audio], "tts": [text, audio], "asr": [audio, text]}[task]
    dialog = [{"name": "user", "type": "user", "content_list": content}]
    other = {"id": row.id, "source": row.source, "start": row.start, "language": row.language}
    values = {"dialog": _json(dialog), "task": task, "other_info": _json(other)}
    return {name: values.get(name, "") for name in COLUMNS}


def audio_file(row: TokenRow, vocabulary: Vocabulary) -> str:
    """Contents of the `.audio` file of a row: one line of JSON."""
    return _json({"audio_path": row.source, "audio_token": vocabulary.ids_of(row.codes).tolist()}) + "\n"


def _audio_turn(row: TokenRow, vocabulary: Vocabulary, sample_rate: int) -> dict[str, Any]:
    # Nothing beside the marker: text before or after it would be read in ways that depend on its length.
    return {
        "type": "audio_text",
        "content": AUDIO_MARKER,
        "audio_infos": {
            "audio_tokens": vocabulary.ids_of(row.codes).tolist(),
            "text": row.text or "",
            "sampling_rate": sample_rate,
            "duration": row.duration,
            "voice_name": row.speaker,
            "raw_audio": None,
            "wer": None,
            "use_text": bool(row.text),
        },
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
