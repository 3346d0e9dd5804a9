"""Small data of a user's, under the names that the README has: letters/, support/, query/, schools.csv, names.csv."""

from pathlib import Path

import numpy as np
import pandas
from PIL import Image, ImageDraw


def write_own_data(folder: Path) -> None:
    """Writes all of it."""
    generator = np.random.default_rng(0)
    for name, count in (("letters", 7), ("support", 1), ("query", 2)):
        for n in range(32 if name == "letters" else 5):
            points = np.random.default_rng(n).uniform(10, 95, (4, 2))
            (folder / name / f"letter {n}").mkdir(parents=True)
            for place in range(count):
                image = Image.new("L", (105, 105), 255)
                strokes = [tuple(point) for point in points + generator.normal(0, 3, points.shape)]
                ImageDraw.Draw(image).line(strokes, fill=0, width=4)
                image.save(folder / name / f"letter {n}" / f"{place}.png")
    school = np.repeat(np.arange(30), 25)
    ses = generator.normal(size=len(school))
    score = 10 + ses * np.random.default_rng(1).normal(2, 1, 30)[school] + generator.normal(size=len(school))
    sex = generator.choice(["F", "M"], len(school))
    pandas.DataFrame({"school": school, "ses": ses, "sex": sex, "score": score}).to_csv(folder / "schools.csv")
    locale = np.repeat(np.arange(20), 12)
    names = ["".join(generator.choice(list("abcdefghij"[n % 5 : n % 5 + 6]), 5)) for n in locale]
    pandas.DataFrame({"name": names, "locale": [f"l{n}" for n in locale]}).to_csv(folder / "names.csv")
