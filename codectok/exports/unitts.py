"""Pretraining data for UniTTS: dialogues in Parquet, or a `.audio` file per clip."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from codectok.errors import InputError
from codectok.exports.sequences.documents import MissingFieldError
from codectok.tokens.table import TokenRow
from codectok.tokens.vocabulary import Vocabulary

from .choices import UnittsStyle, UnittsTask, check_choice

AUDIO_MARKER = "<|audio|>"
COLUMNS = ("dialog", "user_info", "role_info", "dialog_type", "task", "task_category", "other_info")
UNITTS_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in COLUMNS])


def check_unitts(task: str, style: str) -> None:
    """Raise `InputError` for a task or style that UniTTS does not have."""
    check_choice(task, UnittsTask)
    check_choice(style, UnittsStyle)
    if style == UnittsStyle.AUDIO_JSON and task != UnittsTask.AUDIO:
        raise InputError(f"A `.audio` file holds audio alone; --task {task} needs --style parquet.")


def dialog_row(row: TokenRow, vocabulary: Vocabulary, task: UnittsTask, sample_rate: int) -> dict[str, str]:
    """Return a row of the seven `COLUMNS`.

    Raises:
        MissingFieldError: the task needs a text, and the row has none.
    """
    audio = _audio_turn(row, vocabulary, sample_rate)
    if task != UnittsTask.AUDIO and not row.text:
        raise MissingFieldError(f"The row {row.id} has no text.")
    text = {"type": "text", "content": row.text}
    content = {"audio": [audio], "tts": [text, audio], "asr": [audio, text]}[task]
    dialog = [{"name": "user", "type": "user", "content_list": content}]
    other = {"id": row.id, "source": row.source, "start": row.start, "language": row.language}
    values = {"dialog": _json(dialog), "task": str(task), "other_info": _json(other)}
    return {name: values.get(name, "") for name in COLUMNS}


def audio_file(row: TokenRow, vocabulary: Vocabulary) -> str:
    """Return the contents of the `.audio` file of a row: one line of JSON."""
    return _json({"audio_path": row.source, "audio_token": vocabulary.ids_of(row.codes).tolist()}) + "\n"


def _audio_turn(row: TokenRow, vocabulary: Vocabulary, sample_rate: int) -> dict[str, Any]:
    # The marker alone: UniTTS reads text before or after it differently, depending on its length.
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
