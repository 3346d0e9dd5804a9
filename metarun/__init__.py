"""metarun: a command-line experiment runner for meta-learning."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__version__ = "0.1.0"

if sys.platform == "win32":  # it has no flock, no SIGHUP, no sysconf
    print("metarun: error: Windows (operating system): expected Linux or macOS; use WSL", file=sys.stderr)
    raise SystemExit(2)


def load(path: "str | Path", **settings: Any) -> Any:
    """The learner of a finished run, as an estimator in scikit-learn's manner: fit(X, y), then predict(X_new).

    Args:
        path: a run directory, or a file that `metarun export` or an estimator's save() wrote; of the latter the
            learner is fitted already. The data that it was trained on is not needed.
        settings: `together` and `inner_steps` of the estimator, as set_params() takes them.

    Returns:
        A metarun.run.learned.LearnedClassifier, or in regression a LearnedRegressor.

    Raises:
        RunDirError: there is neither; the run is not finished; or what is there cannot be used.
        ValueError: there is no such setting.
    """
    from metarun.run.learned import load_learned

    return load_learned(path, **settings)
