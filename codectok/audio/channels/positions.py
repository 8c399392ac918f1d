"""Positions of loudspeakers: which channel of a file is which, and its weight in a mix."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

# In the order of the bits of a channel mask (WAVE_FORMAT_EXTENSIBLE); F front, B back, S side, T top.
MASK_ORDER = (
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR",
)  # fmt: skip
DEFAULT_ORDERS: dict[int, tuple[str, ...]] = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""By the number of channels; the orders of FLAC, and of WAV without a mask."""
VORBIS_ORDERS: dict[int, tuple[str, ...]] = {
    3: ("FL", "FC", "FR"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FC", "FR", "BL", "BR"),
    6: ("FL", "FC", "FR", "BL", "BR", "LFE"),
    7: ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    8: ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
}
"""Of Vorbis, and of Opus with mapping family 1; libsndfile does not reorder channels."""

# Names in libsndfile's log of AIFF and CAF.
LOGGED_NAMES = {
    "L": "FL", "R": "FR", "C": "FC", "LFE": "LFE", "Ls": "BL", "Rs": "BR", "Cs": "BC", "Lc": "FLC", "Rc": "FRC",
    "Rls": "BL", "Rrs": "BR", "Sl": "SL", "Sr": "SR",
}  # fmt: skip
LOGGED_MASK = re.compile(r"^\s*Channel Mask\s*: 0x([0-9A-Fa-f]+)", re.MULTILINE)
LOGGED_LAYOUT = re.compile(r"^\s*Layout\s*: .*\(([^()]*)\)\s*$", re.MULTILINE)
LOGGED_FAMILY = re.compile(r"^\s*Channel Mapping\s*: (\d+)", re.MULTILINE)

HALF_POWER = math.sqrt(0.5)
# ITU-R BS.775, downmix to one channel: 0.7071 L + 0.7071 R + C + 0.5 Ls + 0.5 Rs, without LFE.
WEIGHTS = {"FL": HALF_POWER, "FR": HALF_POWER, "FLC": HALF_POWER, "FRC": HALF_POWER, "FC": 1.0, "LFE": 0.0}
WEIGHTS |= {"BC": HALF_POWER}  # a single surround channel has the power of two
SURROUND_WEIGHT = 0.5


def positions_in_log(channels: int, encoding: str, log: str) -> tuple[str, ...] | None:
    """Position of each channel of a file that libsndfile has opened, by its log; None if channels have none."""
    if encoding in ("VORBIS", "OPUS"):
        family = LOGGED_FAMILY.search(log)
        return None if family and int(family[1]) > 1 else VORBIS_ORDERS.get(channels)
    mask = LOGGED_MASK.search(log)
    if mask:
        return positions_of_mask(channels, int(mask[1], 16))
    layout = LOGGED_LAYOUT.search(log)
    names = [name.strip() for name in layout[1].split(",")] if layout else []
    if len(names) != channels:
        return DEFAULT_ORDERS.get(channels)
    # The log of MPEG 7.1 C has "R" where the right surround is.
    positions = ["SR" if name == "R" and "R" in names[:i] else LOGGED_NAMES.get(name) for i, name in enumerate(names)]
    known = tuple(name for name in positions if name is not None)
    return known if len(known) == channels else None


def positions_of_mask(channels: int, mask: int) -> tuple[str, ...] | None:
    """Position of each channel by a channel mask, or by default if the mask has another number of channels."""
    named = tuple(name for bit, name in enumerate(MASK_ORDER) if mask >> bit & 1)
    return named if len(named) == channels else DEFAULT_ORDERS.get(channels)


def mixing_weights(channels: int, positions: Sequence[str] | None) -> list[float] | None:
    """Weight of each channel in the mix to mono; None for the plain mean: of stereo, and of unknown positions.

    The weights are those of ITU-R BS.775, by which the centre keeps its level. Without a centre they are scaled so
    that sound that is equal in front left and front right keeps its level.
    """
    if channels < 3 or positions is None or not ("FC" in positions or {"FL", "FR"} <= set(positions)):
        return None
    scale = 1.0 if "FC" in positions else HALF_POWER
    return [scale * WEIGHTS.get(name, SURROUND_WEIGHT) for name in positions]
