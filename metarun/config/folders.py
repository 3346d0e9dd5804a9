"""The folders that configs are composed from, and the names that can be chosen there. Imports nothing heavy."""

from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir() -> Path:
    """Where metarun's own configs lie: inside the package in a wheel, beside it in a checkout."""
    return next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if (path / "config.yaml").is_file())


class ConfigFolders(NamedTuple):
    """Where configs are looked up.

    Attributes:
        primary: the folder of config.yaml (Hydra's --config-path); None: metarun's own.
        extra: a folder with more choices (Hydra's --config-dir).
    """

    primary: Path | None = None
    extra: Path | None = None

    def paths(self) -> list[Path]:
        """The folders whose subfolders are groups of choices; the one with config.yaml comes first."""
        return [self.primary or conf_dir(), *filter(None, [self.extra])]

    def is_group(self, name: str) -> bool:
        """Whether files can be chosen under this name."""
        return any((path / name).is_dir() for path in self.paths())

    def options(self, group: str) -> list[str]:
        """The names that can be chosen in a group, sorted; a folder named `common` holds parts of other files."""
        folders = [path / group for path in self.paths()]
        files = {file.relative_to(folder) for folder in folders for file in folder.rglob("*.yaml")}
        hidden = {file for file in files if any(part[0] == "." for part in file.parts)}  # such as macOS's ._maml.yaml
        return sorted(str(file.with_suffix("")) for file in files - hidden if "common" not in file.parts)


OWN = ConfigFolders()
