"""Published results of codecs, to stand beside measured ones."""

from __future__ import annotations

from dataclasses import dataclass

LIBRISPEECH = "LibriSpeech test-clean"
UNIVERSAL = "Universal audio of DistilCodec's makers (speech, audiobooks, music; not published)"
SOURCE = "README of DistilCodec; Wang et al. 2025, UniTTS, arXiv:2505.17426"
PUBLISHED_HEADER = ("codec", "bit/s", "STOI", "PESQ", "UTMOS", "codes used", "perplexity", "test set", "note")


@dataclass(frozen=True)
class PublishedResult:
    """Metrics of one codec at one rate on a named test set, as published; None where nothing was published.

    Attributes:
        codec: name.
        bits_per_second: as published.
        codebook_size: codes per codebook.
        tokens_per_second: codes per second over all codebooks, as published.
        stoi, pesq, utmos: means over the test set.
        used_share: share of the codes that occur.
        perplexity: of the distribution of codes.
        test_set: that was measured.
        source: publication.
        note: remark on the row; empty if there is none.
    """

    codec: str
    bits_per_second: int
    codebook_size: int
    tokens_per_second: float
    stoi: float | None = None
    pesq: float | None = None
    utmos: float | None = None
    used_share: float | None = None
    perplexity: float | None = None
    test_set: str = LIBRISPEECH
    source: str = SOURCE
    note: str = ""


_DISTILCODEC_RATE = "24,000 / 256 frames per second of 15 bits are 1,406 bits per second"

PUBLISHED: tuple[PublishedResult, ...] = (
    PublishedResult("EnCodec", 6000, 1024, 600, 0.94, 2.75, 3.07),
    PublishedResult("DAC", 6000, 1024, 600, 0.95, 4.01, 4.00),
    PublishedResult("EnCodec", 1500, 1024, 150, 0.84, 1.56, 1.58),
    PublishedResult("Mimi", 1100, 2048, 100, 0.91, 2.25, 3.56),
    PublishedResult("BigCodec", 1040, 8192, 80, 0.94, 2.68, 4.11),
    PublishedResult("DAC", 1000, 1024, 100, 0.73, 1.14, 1.29),
    PublishedResult("SpeechTokenizer", 1000, 1024, 100, 0.77, 1.25, 2.28),
    PublishedResult("X-codec", 1000, 1024, 100, 0.86, 2.33, 4.21),
    PublishedResult("WavTokenizer", 900, 4096, 75, 0.89, 2.14, 3.94),
    PublishedResult("X-codec2", 800, 65_536, 50, 0.92, 2.43, 4.13),
    PublishedResult("StableCodec", 697, 15_625, 50, 0.91, 2.24, 4.23),
    PublishedResult("Single-Codec", 304, 8192, 23.4, 0.86, 1.88, 3.72),
    PublishedResult("BiCodec", 650, 8192, 50, 0.92, 2.51, 4.18),
    PublishedResult("DistilCodec", 1300, 32_768, 93, 0.93, 2.02, 3.75, 0.982, 21_660.5, note=_DISTILCODEC_RATE),
    PublishedResult(
        "DistilCodec", 1300, 32_768, 93, used_share=0.999, perplexity=26_999.0, test_set=UNIVERSAL,
        note=_DISTILCODEC_RATE,
    ),
)  # fmt: skip


def published_rows() -> list[tuple[str, ...]]:
    """Return the rows of a table with the columns `PUBLISHED_HEADER`."""

    def shown(value: float | None, pattern: str) -> str:
        return "" if value is None else format(value, pattern)

    return [
        (
            result.codec,
            f"{result.bits_per_second:,}",
            shown(result.stoi, ".2f"),
            shown(result.pesq, ".2f"),
            shown(result.utmos, ".2f"),
            shown(result.used_share, ".1%"),
            shown(result.perplexity, ",.0f"),
            result.test_set,
            result.note,
        )
        for result in PUBLISHED
    ]
