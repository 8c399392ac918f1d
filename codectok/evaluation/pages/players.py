"""Players side by side: a clip and its reconstructions, with pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Player:
    """One version of a clip.

    Attributes:
        label: name of the version, such as "original" or a codec.
        audio: bytes of the file.
        mime: kind of the file, such as "audio/flac".
        picture: PNG file of its spectrogram; None for none.
        caption: values, below the label; empty for none.
    """

    label: str
    audio: bytes
    mime: str
    picture: bytes | None = None
    caption: str = ""


@dataclass(frozen=True)
class Comparison:
    """Versions of one clip, side by side under its caption."""

    caption: str
    players: Sequence[Player]


def comparison_html(comparison: Comparison) -> str:
    """Return a heading and a row of figures."""
    figures = "".join(_figure(player, comparison.caption) for player in comparison.players)
    return f'<h3>{escape(comparison.caption)}</h3><div class="players">{figures}</div>'


def data_url(mime: str, data: bytes) -> str:
    """Return an address that holds a file."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _figure(player: Player, caption: str) -> str:
    label = escape(f"{player.label}: {caption}")
    picture = ""
    if player.picture is not None:
        source = data_url("image/png", player.picture)
        picture = f'<img alt="Spectrogram, {label}" src="{source}">'
    more = f"<br>{escape(player.caption)}" if player.caption else ""
    return (
        f'<figure>{picture}<audio controls preload="none" aria-label="{label}"'
        f' src="{data_url(player.mime, player.audio)}"></audio>'
        f"<figcaption><b>{escape(player.label)}</b>{more}</figcaption></figure>"
    )
