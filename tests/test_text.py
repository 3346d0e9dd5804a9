"""Numbers and paths as people read them."""

import pytest

from metarun.text import format_alike, format_metric, typed_path


@pytest.mark.parametrize(
    ("metric", "value", "ci95", "expected"),
    [
        ("accuracy", 0.987, 0.0043, "98.70 ± 0.43 %"),
        ("accuracy", 0.6695, 0.18, "67 ± 18 %"),
        ("accuracy", 0.5, 0.00996, "50.0 ± 1.0 %"),  # 0.996 has two digits as 1.0
        ("accuracy", 0.9996, None, "100.0 %"),
        ("mse", 0.3781, 0.0493, "0.378 ± 0.049"),
        ("mse", 123456.0, 789.0, "123460 ± 790"),
        ("mse", 1.04e7, 2e5, "1.040e+07 ± 0.020e+07"),
        ("mse", 3e-7, 2.1e-8, "3.00e-07 ± 0.21e-07"),
        ("mse", 1e-9, 0.3, "0.00 ± 0.30"),
        ("mse", 0.5, 0.0, "0.5 ± 0"),
        ("accuracy", 0.5, 1e308, "50.0 ± inf %"),
        ("mse", 2.0, 4e-17, "2.000000 ± 0.000000"),
        ("mse", 2.34567, None, "2.346"),
    ],
)
def test_a_value_and_its_interval_have_the_same_decimals_two_digits_of_the_interval(metric, value, ci95, expected):
    assert format_metric(metric, value, ci95) == expected


def test_other_values_have_the_decimals_of_the_first_however_large_they_are():
    assert format_alike("mse", [0.3, 0.02, 1e8], 0.02) == ["0.300", "0.020", "100000000.000"]


def test_a_path_to_type_names_the_same_folder_in_the_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"run": "run", "my run": "'my run'", "-run": "./-run", "a$b": "'a$b'"}
    assert {name: typed_path(tmp_path / name) for name in names} == names
    assert typed_path(tmp_path.parent) == str(tmp_path.parent)
    assert typed_path(tmp_path) == str(tmp_path), "the shell may be in another folder: hydra.job.chdir"
