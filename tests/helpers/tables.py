"""Small tables, from which sources are made."""

import numpy as np
import pandas

CITIES = 12
SIZES = [8, 40, 12, 30, 25, 18, 9, 22, 35, 16, 28, 20]  # rows of each city


def cities(seed=0):
    """People of 12 cities, in any order: their `wage` is a line of `age` with a slope of the city's own."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(2, 1, CITIES)
    city = np.repeat(np.arange(CITIES), SIZES)
    age = rng.normal(40, 10, len(city))
    wage = 10 + slopes[city] * (age - 40) + rng.normal(0, 1, len(city))
    frame = pandas.DataFrame({"city": [f"city {n}" for n in city], "age": age, "wage": wage})
    frame["job"] = rng.choice(["baker", "smith"], len(city))
    frame["name"] = [f"{'ABCDEFGHIJKL'[n]}{'aeiou'[i % 5]}{i}" for i, n in enumerate(city)]
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def words_for(data, folder):
    """The words by which a run finds the files that a task source of conf/ cannot do without."""
    path = folder / "cities.csv"
    if data not in ("table", "text"):
        return []
    if not path.exists():
        cities().to_csv(path, index=False)
    columns = {
        "table": ["data.target=wage", "data.task=city", "data.drop=[name]"],
        "text": ["data.text=name", "data.target=city"],
    }
    small = ["data.splits=[0.5,0.25,0.25]", "data.shots=3", "data.queries=4"]
    return [f"data.file={path}", *columns[data], *small]
