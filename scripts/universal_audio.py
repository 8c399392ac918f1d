"""Downloads recordings of speech, music and effects, and writes manifests for `codectok shard`.

    python scripts/universal_audio.py universal
    codectok shard universal/train.jsonl universal/shards-train --min-seconds 0.5
    codectok shard universal/validation.jsonl universal/shards-validation --min-seconds 0.5

All recordings come from packages of Debian 12, in the versions and with the SHA-256 below. Needs `apt-get`, `dpkg` and
`ffmpeg`, but no root. Speakers, pieces and effects of the validation set are not in the training set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".ogg", ".wav", ".flac", ".opus", ".g722")
# One in this many effects is a validation clip, chosen by the hash of its name.
HELD_OUT_EFFECTS = 10


class FetchError(Exception):
    """A package or a program is missing."""


@dataclass(frozen=True)
class Rule:
    """Category of the files whose path in a package matches.

    Attributes:
        pattern: regular expression, found anywhere in the path.
        category: "speech", "music" or "effects"; None leaves the files out.
        held_out: regular expression of validation files among them; of effects, some are always held out.
    """

    pattern: str
    category: str | None
    held_out: str | None = None


@dataclass(frozen=True)
class Package:
    """A Debian package with recordings.

    Attributes:
        name: of the package.
        version: of Debian 12.
        sha256: of the .deb file.
        rules: the first one that matches a file decides; files without a match are left out.
    """

    name: str
    version: str
    sha256: str
    rules: tuple[Rule, ...]


# Left out although they are recordings: 8 kHz without a header (codec2-examples/raw), noise and impulses (sonic-pi
# buffers), a container that no decoder reads (openttd-opensfx).
PACKAGES = (
    Package(
        "fillets-ng-data-nl",
        "1.0.1-1.1",
        "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10",
        (Rule(r"/sound/", "speech"),),
    ),
    Package(
        "klettres-data",
        "4:22.12.3-1",
        "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
        (Rule(r"/klettres/[^/]+/(alpha|syllab)/", "speech", held_out=r"/klettres/(de|hu)/"),),
    ),
    Package(
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        (Rule(r"_desc(_[a-z]+)?\.ogg$", "speech", held_out=r"_desc_el\.ogg$"), Rule(r"\.(ogg|wav)$", "effects")),
    ),
    Package(
        "asterisk-core-sounds-en-g722",
        "1.6.1-1",
        "38c5261820b406dcb0ecb37675720da2b0864850690690352ca52707eb623806",
        (Rule(r"/silence/", None), Rule(r"/sounds/", "speech")),
    ),
    Package(
        "asterisk-core-sounds-es-g722",
        "1.6.1-1",
        "e4e3b4281057d3b81b779298fd6be705f57411513955c518eed1bcaabbd615b8",
        (Rule(r"/silence/", None), Rule(r"/sounds/", "speech")),
    ),
    Package(
        "asterisk-core-sounds-ru-g722",
        "1.6.1-1",
        "673b4238a6b8269960f055d868c6a11083f7a0d00979167cb01554046b48ed9b",
        (Rule(r"/silence/", None), Rule(r"/sounds/", "speech")),
    ),
    Package(
        "ktuberling-data",
        "4:22.12.3-1",
        "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
        (Rule(r"/sounds/", "speech", held_out=r"/sounds/(de|el|en)/"),),
    ),
    Package(
        "gcin-voice",
        "0~20170223-3",
        "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70",
        (Rule(r"/ogg/", "speech"),),
    ),
    Package(
        "hedgewars-data",
        "1.0.2-6",
        "722225903a72604403e6e0026e40e9a6953f47a74d94efc5f55504bc05bb4761",
        (
            Rule(r"/Sounds/voices/", "speech", held_out=r"/voices/(British|Russian_pl)/"),
            Rule(r"/Music/", "music", held_out=r"/(Castle|Rock|underwater)\.ogg$"),
            Rule(r"/Sounds/", "effects"),
        ),
    ),
    Package(
        "codec2-examples",
        "1.0.5-1",
        "7af8cd128f269a1d8116993c9d2bd7d4d452fc17da46a09899aaca2b9bd993d4",
        (Rule(r"/wav/", "speech", held_out=r"/wav/"),),
    ),
    Package(
        "pocketsphinx-testdata",
        "0.8+5prealpha+1-15",
        "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
        (Rule(r"/(cards|librivox)/", "speech", held_out=r"/(cards|librivox)/"),),
    ),
    Package(
        "wesnoth-1.16-music",
        "1:1.16.9-1",
        "f9bc3cde92b4ab30db5d7b85f89b4bcc3d788dd92602956d0347250850bf59bb",
        (
            Rule(r"/music/silence\.ogg$", None),
            Rule(r"/music/", "music", held_out=r"/(elf-land|frantic-old|knolls|sad|wanderer)\.ogg$"),
        ),
    ),
    Package(
        "warzone2100-music",
        "4.3.3-3",
        "d3b2c9f90ea5438d45d4aff18339a03ec808e1affa9dac91f7dad61cb15ee64e",
        (Rule(r"/albums/", "music", held_out=r"/track(7|14|22)\.opus$"),),
    ),
    Package(
        "wesnoth-1.16-data",
        "1:1.16.9-1",
        "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26",
        (Rule(r"/sounds/", "effects"),),
    ),
    Package(
        "colobot-common-sounds",
        "0.2.0-2",
        "819e799542eac69c95b072567b5584eb3e0b2bb900de13efa3684915747b1644",
        (Rule(r"/music/", "music", held_out=r"/(Infinite|music007)\.ogg$"), Rule(r"/sounds/", "effects")),
    ),
    Package(
        "sonic-pi-samples",
        "3.2.2~repack-8",
        "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
        (Rule(r"/samples/", "effects"),),
    ),
)


def main() -> None:
    """Download, unpack, and write `train.jsonl` and `validation.jsonl`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("output", type=Path, help="folder for packages, recordings and manifests")
    output: Path = parser.parse_args().output
    try:
        rows = [row for package in PACKAGES for row in _rows(package, output)]
    except FetchError as error:
        sys.exit(f"Error: {error}")
    for name, held_out in (("train", False), ("validation", True)):
        chosen = [row for is_held_out, row in rows if is_held_out is held_out]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        (output / f"{name}.jsonl").write_text(text, encoding="utf-8")
        sys.stdout.write(f"{output / name}.jsonl: {len(chosen):,} recordings\n")


def _rows(package: Package, output: Path) -> Iterator[tuple[bool, dict[str, str]]]:
    """Rows of a package's recordings for the manifests, and whether they are held out, in the order of their paths."""
    folder = output / "recordings" / package.name
    if not folder.is_dir():
        _unpack(_download(package, output), folder)
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix().encode()):
        if path.suffix not in SUFFIXES or path.is_symlink():
            continue
        # The FLAC file made of a G.722 file has the rule of its origin.
        name = path.relative_to(folder).as_posix()
        rule = next((rule for rule in package.rules if re.search(rule.pattern, f"/{name}")), None)
        if rule is None or rule.category is None or path.suffix == ".g722":
            continue
        row = {
            "path": path.relative_to(output).as_posix(),
            "id": f"{package.name}/{name}",
            "category": rule.category,
            "package": package.name,
        }
        yield _is_held_out(rule, name), row


def _is_held_out(rule: Rule, name: str) -> bool:
    if rule.category == "effects":
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % HELD_OUT_EFFECTS == 0
    return rule.held_out is not None and re.search(rule.held_out, f"/{name}") is not None


def _download(package: Package, output: Path) -> Path:
    """Download a package's archive, unless it is there, and check it."""
    archives = output / "packages"
    archives.mkdir(parents=True, exist_ok=True)
    archive = archives / f"{package.name}.deb"
    if not archive.exists():
        sys.stderr.write(f"Downloading {package.name} {package.version}\n")
        wanted = f"{package.name}={package.version}"
        if not (_apt(archives, "download", wanted) or (_apt_with_own_lists(archives, "download", wanted))):
            raise FetchError(f"apt-get does not have {wanted}; use a machine with Debian 12")
        next(archives.glob(f"{package.name}_*.deb")).rename(archive)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise FetchError(f"{archive} has the SHA-256 {digest} instead of {package.sha256}; delete it and try again")
    return archive


def _apt(folder: Path, *arguments: str) -> bool:
    return _run(folder, "apt-get", "-qq", *arguments)


def _apt_with_own_lists(folder: Path, *arguments: str) -> bool:
    """Call apt-get with package lists of our own: a new system has none, and updating its lists needs root."""
    lists, cache = folder.resolve() / "lists", folder.resolve() / "cache"
    options = [f"Dir::State::Lists={lists}", f"Dir::Cache={cache}", "APT::Sandbox::User=root"]
    flags = [part for option in options for part in ("-o", option)]
    for needed in (lists / "partial", cache / "archives" / "partial"):
        needed.mkdir(parents=True, exist_ok=True)
    return _apt(folder, *flags, "update") and _apt(folder, *flags, *arguments)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, and convert its G.722 files, which have no header, to FLAC."""
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    if not _run(unfinished, "dpkg", "-x", str(archive.resolve()), "."):
        raise FetchError(f"dpkg could not unpack {archive}")
    for path in sorted(unfinished.rglob("*.g722")):
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-f", "g722", "-i", path.name, f"{path.stem}.flac"]
        if not _run(path.parent, *command):
            raise FetchError(f"ffmpeg could not decode {path.name} of {archive.name}")
    unfinished.rename(folder)


def _run(folder: Path, program: str, *arguments: str) -> bool:
    """Run a program in a folder; False if it fails."""
    try:
        return subprocess.run([program, *arguments], cwd=folder, check=False).returncode == 0
    except FileNotFoundError:
        raise FetchError(f"{program} is not installed") from None


if __name__ == "__main__":
    main()
