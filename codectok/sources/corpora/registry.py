"""All layouts of corpora, and their search in a folder or for a named file."""

from __future__ import annotations

from codectok.sources.manifests.row import ManifestRow

from .audio_folder import AudioFolder
from .common_voice import CommonVoice
from .kaldi import Kaldi
from .layout import CorpusFolder, Layout, Recognised
from .librispeech import LibriSpeech
from .ljspeech import LJSpeech
from .nemo import NemoTarred, row_of_nemo_tar
from .recordings import Recordings
from .shar import Shar, row_of_shar_tar
from .sidecars import Sidecars

LAYOUTS: tuple[Layout, ...] = (Shar(), NemoTarred(), Kaldi(), LJSpeech(), AudioFolder(), CommonVoice(), LibriSpeech())
SIDECARS = Sidecars()
SUFFIXES = (".scp", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".lab", ".gz")
# Read if they are named; a folder may hold them beside cuts of the same audio.
NAMED: tuple[Layout, ...] = (*LAYOUTS[:6], Recordings())


def find_layout(folder: CorpusFolder) -> Recognised | None:
    """The layout of the files in a folder; None if they are of none.

    Files of two layouts are not read, since it is not clear which of them is meant.
    """
    names = sorted(name for name in folder.files if name.lower().endswith(SUFFIXES))
    if not names:
        return None
    found = [one for layout in LAYOUTS if (one := layout.find(folder, names)) is not None]
    if len(found) > 1:
        left = sorted({name for one in found for name in (*one.names, *one.left)})
        return Recognised(found[0].layout, (), left)
    return found[0] if found else SIDECARS.find(folder, names)


def layout_of_file(folder: CorpusFolder, name: str) -> Recognised | None:
    """The layout of a file that a command names; None for other manifests."""
    found = (layout.find(folder, [name]) for layout in NAMED)
    return next((one for one in found if one is not None and one.names), None)


def row_of_tar(root: str, path: str) -> ManifestRow | None:
    """The row of a tar that is named without the file beside it that describes its samples; None without one."""
    place = path.rfind("/") + 1
    folder = CorpusFolder(root, path[:place])
    return row_of_shar_tar(folder, path[place:]) or row_of_nemo_tar(folder, path[place:])
