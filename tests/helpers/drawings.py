"""A small Omniglot that the tests draw themselves, in the layout of the real one: two archives of one-bit drawings."""

import hashlib
import io
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from metarun.data.omniglot import Omniglot
from metarun.data.omniglot_archive import DIGEST

CHARACTERS = {  # name: archive, number of characters
    "Greek": ("images_background", 24),
    "Sanskrit": ("images_background", 20),
    "Tengwar": ("images_evaluation", 20),
    "ULOG": ("images_evaluation", 20),
}
SPLIT_SIZES = {"train": 44, "val": 20, "test": 20}


class RealOmniglot(Omniglot):
    """Omniglot as it is: in the tests' own process the class itself expects the small one."""

    digest = DIGEST
    split_sizes: ClassVar = Omniglot.split_sizes


def _drawing(rng, strokes):
    """105x105, one bit: the strokes of a character, drawn by an unsteady hand; ink is 0."""
    image = Image.new("1", (105, 105), 1)
    points = strokes + rng.normal(0, 3, strokes.shape)
    ImageDraw.Draw(image).line([tuple(point) for point in points], fill=0, width=3)
    return image


def draw(root: Path) -> str:
    """Writes root/omniglot-py/{images_background,images_evaluation}.zip, and gives the digest of their drawings."""
    rng = np.random.default_rng(0)
    (root / "omniglot-py").mkdir(parents=True)
    digests, number = {}, 0
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(root / "omniglot-py" / f"{name}.zip", "w") as archive:
            for alphabet, count in ((a, n) for a, (part, n) in CHARACTERS.items() if part == name):
                digest = hashlib.sha256()
                for character in range(1, count + 1):
                    number += 1
                    strokes = rng.uniform(10, 95, (5, 2))
                    for drawer in range(1, 21):
                        image, file = _drawing(rng, strokes), io.BytesIO()
                        digest.update(np.packbits(np.asarray(image)).tobytes())
                        image.save(file, "PNG")
                        path = f"{name}/{alphabet}/character{character:02d}/{number:04d}_{drawer:02d}.png"
                        archive.writestr(path, file.getvalue())
                digests[alphabet] = digest.hexdigest()[:16]
    return hashlib.sha256("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()
