"""Configs that earlier versions saved, in the words of today. What they lacked stands in keys.NEWER."""

from typing import Any

GONE = {"engine": ("compiled",)}  # settings that there are no more, and that changed no result


def without_gone(plain: dict[str, Any]) -> dict[str, Any]:
    """The config without settings that are gone, and in a compiled engine without recomputing."""
    gone = {section: names for section, names in GONE.items() if isinstance(plain.get(section), dict)}
    kept = {section: {k: v for k, v in plain[section].items() if k not in names} for section, names in gone.items()}
    if kept.get("engine", {}).get("mode") == "compile":
        kept["engine"].pop("checkpoint_inner", None)
    return {**plain, **kept}
