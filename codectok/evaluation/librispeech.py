"""The test set of the published figures: a local copy of LibriSpeech test-clean."""

from __future__ import annotations

import re
from pathlib import Path

from codectok.errors import InputError

PRESET = "librispeech-test-clean"
# Of the published set; see Panayotov et al. 2015, "Librispeech: an ASR corpus based on public domain audio books".
SPEAKERS, UTTERANCES = 40, 2620
METRICS = ("stoi", "pesq")
_UTTERANCE = re.compile(r"(\d+)-(\d+)-\d{4}\.flac")


def check_test_clean(source: str) -> None:
    """Check that `source` is a whole copy of LibriSpeech test-clean: speakers, chapters and utterances.

    Raises:
        InputError: a folder has another layout, or the number of speakers or utterances differs.
    """
    root = Path(source)
    if not root.is_dir():
        raise InputError(f"{source} is not a folder; --preset {PRESET} needs a local copy of LibriSpeech/test-clean.")
    speakers: set[str] = set()
    utterances = 0
    for path in sorted(root.rglob("*.flac")):
        found = _UTTERANCE.fullmatch(path.name)
        if found is None or path.parent != root / found[1] / found[2]:
            raise InputError(
                f"{path} does not lie in the layout of LibriSpeech, SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac; give"
                " the folder test-clean as it was unpacked."
            )
        speakers.add(found[1])
        utterances += 1
    if (len(speakers), utterances) != (SPEAKERS, UTTERANCES):
        raise InputError(
            f"{source} holds {utterances:,} utterances of {len(speakers)} speakers, but test-clean has"
            f" {UTTERANCES:,} of {SPEAKERS}; unpack it again."
        )
