"""What may be built from a config: classes of packages that are trusted by name. Imports no torch."""

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.machinery import PathFinder
from typing import Any, get_args

from metarun.config.own_code import class_name, is_own, place_of, trusted, within
from metarun.errors import DataError, MetarunError, SettingError, UsageError
from metarun.text import nearest, reason, spell

# Of metarun itself. Other classes of its do more than a stranger's config may, such as to open a file for writing.
PARTS = [f"metarun.{part}" for part in ("algos", "data", "models", "engine.device", "engine.engine", "run.loggers")]
GIVEN = {"algo": ("model",), "model": ("input_shape", "outputs")}  # arguments that the run supplies, by section


def targets(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Every `_target_` in a part of a config, with its dotted key."""
    if isinstance(node, list):
        for number, value in enumerate(node):
            yield from targets(value, f"{where}[{number}]")
    elif isinstance(node, dict):
        for key, value in node.items():
            name = f"{where}.{key}".lstrip(".")
            yield from [(name, value)] if key == "_target_" else targets(value, name)


def check_name(key: str, target: Any) -> None:
    """Raises UsageError if a `_target_` is no dotted name; where nothing is built from it, any will do."""
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")):
        raise UsageError(f"{spell(target)} ({key}): expected the dotted name of a class, such as metarun.models.MLP")


def check_target(key: str, target: Any, more: tuple[str, ...] = ()) -> None:
    """Raises UsageError if a `_target_` names something outside the trusted packages, and `more` of them."""
    packages = [*more, *trusted()]
    if not isinstance(target, str) or not within(target, packages):
        raise UsageError(
            f"{target!r} ({key}): expected a class in {', '.join(packages)}; to trust another package, name it in the "
            f"environment: METARUN_TRUST=package{_describe_absent()}"
        )


def _describe_absent() -> str:
    """That the environment trusts packages that are not here: somebody has misspelt their names."""
    absent = [name for name in trusted() if not _can_be_found(name.partition(".")[0])]
    return f"; METARUN_TRUST names {', '.join(absent)}, which cannot be found here" if absent else ""


def _can_be_found(name: str) -> bool:
    try:
        return bool(
            name in sys.modules or importlib.util.find_spec(name) or PathFinder.find_spec(name, [_working_directory()])
        )
    except (ImportError, ValueError):
        return False


def build(section: str, node: dict[str, Any], more: tuple[str, ...] = (), **given: Any) -> Any:
    """Builds the object that a section of the config describes. The only place where a config becomes code.

    Hydra's own instantiate would resolve interpolations on the way, which can call whatever a resolver can.

    Args:
        section: for messages, such as "algo".
        node: `_target_`, perhaps `_partial_: true`, and arguments, which may be such nodes themselves.
        more: packages that are trusted for this object, beside those that always are.
        given: arguments that the run supplies.

    Raises:
        UsageError: a target is not a trusted class, or does not take these arguments, or refuses their values.
        DataError: a class of the user's reads a file already, and cannot.
    """
    if "_target_" not in node:
        raise UsageError(f"{section}._target_: missing; expected the class to build")
    cls = trusted_class(f"{section}._target_", node["_target_"], more)
    settings = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    takes = parameters_of(cls)
    if takes is not None:
        keys = [key for key in takes if key not in given]
        for name, value in settings.items():
            if name not in takes:
                raise UsageError(
                    f"{section}.{name}: no such setting of {cls.__name__}; "
                    f"it has {', '.join(keys)}{nearest(name, keys)}"
                )
            if value is None and not _takes_null(takes[name]):
                raise UsageError(f"null ({section}.{name}): expected a value; {cls.__name__} takes no null there")
    built = {name: _built(f"{section}.{name}", value) for name, value in settings.items()}
    if node.get("_partial_"):
        return partial(cls, **given, **built)
    try:
        return cls(**given, **built)
    except SettingError as error:
        raise UsageError(f"{spell(error.value)} ({section}.{error.name}): expected {error.expected}") from error
    except MetarunError:
        raise
    except Exception as error:
        own = is_own(cls.__module__)
        if not own and not isinstance(error, (TypeError, ValueError, RuntimeError)):  # of torch, or memory is short
            raise
        place, path = place_of(error), getattr(error, "filename", None) if isinstance(error, OSError) else None
        why = f"{type(error).__name__}: " * own + reason(error) + (f": {path}" if path else "")
        where = f" ({place}): expected no error there; mend it" if place else ""
        refusal = DataError if isinstance(error, OSError) and section == "data" else UsageError
        raise refusal(f"{section}: {class_name(cls)} cannot be built: {why}{where}") from error


def parameters_of(cls: type, eval_str: bool = False) -> dict[str, inspect.Parameter] | None:
    """The parameters of a class's constructor by name; None where it takes any.

    What `**settings` takes is taken to go to the constructor of the next class of metarun that it inherits from, as
    ClassSource.
    """
    found = dict(inspect.signature(cls, eval_str=eval_str).parameters)
    for base in cls.__mro__[1:]:
        rest = [name for name, parameter in found.items() if parameter.kind is parameter.VAR_KEYWORD]
        if not rest:
            return found
        if within(base.__module__, ["metarun"]) and "__init__" in vars(base):
            del found[rest[0]]
            _, *inherited = inspect.signature(vars(base)["__init__"], eval_str=eval_str).parameters.items()
            found = {name: parameter for name, parameter in inherited if name not in found} | found
    return None


def settings_of(section: str, node: dict[str, Any]) -> dict[str, inspect.Parameter] | None:
    """The parameters of a node's class that settings can be; None where it takes any.

    What a partial class has to be called with is no setting. Annotations are types, not their names, where they can be
    found. Raises UsageError: it is no trusted class.
    """
    cls = trusted_class(f"{section}._target_", node["_target_"])
    try:
        takes = parameters_of(cls, eval_str=True)
    except Exception:  # names of types that are only imported for type checkers
        takes = parameters_of(cls)
    if takes is None:
        return None
    given = GIVEN.get(section, ())
    if node.get("_partial_"):
        given = [name for name, parameter in takes.items() if parameter.default is parameter.empty]
    return {name: parameter for name, parameter in takes.items() if name not in given}


def _takes_null(parameter: inspect.Parameter) -> bool:
    """Whether an argument may be null, as far as its annotation tells."""
    hint = parameter.annotation
    unknown = hint in (parameter.empty, Any) or isinstance(hint, str)
    return unknown or parameter.default is None or type(None) in get_args(hint)


def _built(key: str, value: Any) -> Any:
    """A value of the config, with the nodes in it that have a `_target_` built."""
    if isinstance(value, list):
        return [_built(f"{key}[{number}]", item) for number, item in enumerate(value)]
    if isinstance(value, dict):
        if "_target_" in value:
            return build(key, value)
        return {name: _built(f"{key}.{name}", item) for name, item in value.items()}
    return value


def trusted_class(key: str, target: Any, more: tuple[str, ...] = ()) -> type:
    """The class of a `_target_`. A trusted package may import anything; only classes that it defines itself count.

    Raises UsageError where it is no such class, nor one of the packages in `more`.
    """
    return _import_target(key, target, "class", inspect.isclass, more)


def trusted_function(key: str, target: Any) -> Callable[..., Any]:
    """The function of a dotted name. Raises UsageError unless a trusted package defines it itself."""
    return _import_target(key, target, "function", inspect.isfunction)


def _import_target(key: str, target: Any, kind: str, is_kind: Callable[[Any], bool], more: tuple[str, ...] = ()) -> Any:
    """The class or the function of a dotted name."""
    check_target(key, target, more)
    module, _, name = target.rpartition(".")
    try:
        if (package := target.partition(".")[0]) in trusted():
            _import_trusted(package)
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        place = f" ({place})" if (place := place_of(error)) else ""
        why = f"{type(error).__name__}: {reason(error)}{place}"
        where = _describe_search(target) if isinstance(error, ModuleNotFoundError) and not place else ""
        raise UsageError(f"{target!r} ({key}): expected a {kind} that can be imported: {why}{where}") from error
    packages = [*more, *trusted()]
    if not is_kind(found) or not within(found.__module__, packages):
        raise UsageError(f"{target!r} ({key}): expected a {kind} that {', '.join(packages)} define themselves")
    if within(found.__module__, ["metarun"]) and not within(found.__module__, PARTS):
        raise UsageError(f"{target!r} ({key}): expected a {kind} in {', '.join(PARTS)}")
    return found


def _describe_search(target: str) -> str:
    """Where a package was looked for that is not there; '' where it is, and lacks a module."""
    package = target.partition(".")[0]
    if _can_be_found(package):
        return ""
    rule = f"looked in the working directory ({_working_directory()}) and where Python has its packages"
    return f"; {rule}; cd to the folder that {package} lies in, or name that: PYTHONPATH=FOLDER"


def _working_directory() -> str:
    """That in which the command was typed: with hydra.job.chdir a job's process has another one."""
    from hydra.core.hydra_config import HydraConfig

    return HydraConfig.get().runtime.cwd if HydraConfig.initialized() else os.getcwd()


def _import_trusted(name: str) -> None:
    """Imports a package that the user trusts from the working directory, if it is not installed.

    It alone: with the directory on sys.path, everything else that lies there could be imported too.
    """
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        return
    importlib.invalidate_caches()
    spec = PathFinder.find_spec(name, [_working_directory()])
    if spec is None or spec.loader is None:
        return
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
