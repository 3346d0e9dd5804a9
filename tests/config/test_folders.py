"""Where configs lie, and what can be chosen there."""

from pathlib import Path

from metarun.config.folders import ConfigFolders, conf_dir


def test_metaruns_own_folder_and_another(tmp_path):
    (tmp_path / "algo/mine").mkdir(parents=True)
    for name in ("b", "mine/a", "common/part", "._b", ".git/c"):
        path = tmp_path / f"algo/{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    folders = ConfigFolders(None, tmp_path)
    assert folders.paths() == [conf_dir(), tmp_path]
    names = folders.options("algo")
    assert names == sorted(names)
    assert {"b", "mine/a", "maml"} < set(names)
    assert not any("common" in name for name in names), "parts of other files cannot be chosen"
    assert not any(name.startswith(".") for name in names), "nor what macOS and others hide beside them"
    assert ConfigFolders(tmp_path).options("data") == []


def test_a_wheel_has_its_configs_inside(monkeypatch, tmp_path):
    (tmp_path / "metarun/conf").mkdir(parents=True)
    (tmp_path / "metarun/conf/config.yaml").touch()
    monkeypatch.setattr("metarun.config.folders.PACKAGE", tmp_path / "metarun")
    assert conf_dir() == Path(tmp_path, "metarun/conf")
