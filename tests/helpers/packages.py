"""Packages of other makers, as they are after an installation into a folder of `sys.path`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path


def write_distribution(folder: Path) -> None:
    """Write the metadata of the package whose `pyproject.toml` is in `folder`, as its installation would."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    write_metadata(folder, project["name"], project["entry-points"], project["version"])


def write_metadata(folder: Path, name: str, groups: Mapping[str, Mapping[str, str]], version: str = "1.0") -> None:
    """Write `NAME-VERSION.dist-info` with entry points by group."""
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True, exist_ok=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in groups.items()
    ]
    (place / "entry_points.txt").write_text("\n".join(lines))
