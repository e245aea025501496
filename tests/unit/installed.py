"""Packages as pip leaves them: a folder on the path with modules and real metadata."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, name: str, version: str = "1.0", *, entry_points: str = "", **modules: str) -> None:
    """Write modules and the metadata of a distribution that brings them."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    (metadata / "top_level.txt").write_text("".join(f"{module}\n" for module in modules))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


def adapter(*targets: str) -> str:
    """Return the source of a module with an adapter, `make`, of these targets, each written `module:name`."""
    listed = ", ".join(
        f"PatchTarget({module!r}, {name!r}, Role.REQUEST, 'tools/call')"
        for module, name in (target.split(":") for target in targets)
    )
    return f"""
from storescope.stores import PatchTarget, Role
class Adapter:
    name = "of the test"
    targets = ({listed},)
make = Adapter
"""
