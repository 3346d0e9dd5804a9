"""Files that are whole or as they were."""

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """The file has this content afterwards, or is as it was; never anything in between.

    One process at a time may write a path: run directories and caches are locked by who writes there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
