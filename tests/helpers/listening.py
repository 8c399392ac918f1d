"""Listening tests without a corpus: a few short stimuli, and ratings as a page sends them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from codectok.audio.files import encode_audio
from codectok.choices import ListeningScale
from codectok.evaluation.listening.sessions import Sessions
from codectok.evaluation.listening.stored_test import (
    RATINGS_FOLDER,
    STIMULI_FOLDER,
    ListeningTest,
    System,
    TestClip,
    stimulus_path,
)

SYSTEMS = ("reference", "anchor", "ours", "theirs")


def write_listening_test(folder: Path, scale: ListeningScale = "mushra", clips: int = 2) -> ListeningTest:
    """Write a test whose stimuli are short noises, all different, and return it."""
    (folder / STIMULI_FOLDER).mkdir(parents=True)
    (folder / RATINGS_FOLDER).mkdir()
    ids = iter(f"{number:032x}" for number in range(0x100, 0x1000))
    test = ListeningTest(
        id=next(ids),
        seed=3,
        scale=scale,
        sample_rate=48_000,
        max_seconds=1.0,
        keep_levels=False,
        systems=(
            System(name="reference", kind="reference"),
            System(name="anchor", kind="anchor"),
            System(name="ours", kind="codec", source="secret/codec", fingerprint="ab"),
            System(name="theirs", kind="folder", source="/secret/theirs"),
        ),
        clips=tuple(
            TestClip(
                id=str(number),
                clip=f"clip-{number}",
                dataset="speech",
                source=f"{number}.wav",
                start=0.0,
                seconds=0.25,
                labelled=next(ids),
                stimuli={name: next(ids) for name in SYSTEMS},
            )
            for number in range(clips)
        ),
    )
    for number, stimulus in enumerate(sorted(test.stimulus_ids)):
        samples = np.random.default_rng(number).uniform(-0.3, 0.3, 12_000).astype(np.float32)
        stimulus_path(folder, stimulus).write_bytes(encode_audio(samples, 48_000, "wav"))
    test.save(folder)
    return test


def rate_page(sessions: Sessions, listener: str, state: Mapping[str, Any], values: Mapping[str, int]) -> dict[str, Any]:
    """Rate all stimuli of the current page, and complete it; `values` holds the rating of each system."""
    test, page = sessions.test, state["page"]
    by_stimulus = {stimulus: name for name, stimulus in test.pages[page["id"]].clip.stimuli.items()}
    for shown in page["stimuli"]:
        for scale in page["scales"]:
            value = values[by_stimulus[shown["id"]]]
            sessions.rate(listener, page["id"], shown["id"], scale["name"], value, 1.5)
    return sessions.complete(listener, page["id"], {})
