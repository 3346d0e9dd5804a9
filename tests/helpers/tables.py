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
