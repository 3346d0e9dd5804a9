"""A disk that fails: what metarun does with files is watched, and at one chosen call something happens."""

import errno
import os
from pathlib import Path

WATCHED = ("open", "write", "fsync", "replace", "unlink", "mkdir")


class PowerCut(BaseException):
    """The process is dead: nothing that it still does reaches the disk."""


class Disk:
    """Watches every call of WATCHED on files below a folder, while it is installed.

    Args:
        folder: what is watched.
        at: the number of the call, from 0, at which something happens; None: never.
        error: errno of what that call and, for `lasting`, all later writing raises; None: the process is killed there,
            a write after half of its bytes.
        lasting: whether a disk stays full once it is.
    """

    def __init__(self, folder, at=None, error=None, lasting=False):
        self.folder, self.at, self.error, self.lasting = str(Path(folder).resolve()), at, error, lasting
        self.calls, self.count, self.happened = [], 0, False
        self.real = {name: getattr(os, name) for name in WATCHED}
        self.handles = {}

    def install(self, monkeypatch):
        """Until the monkeypatch is undone."""
        for name in WATCHED:
            monkeypatch.setattr(os, name, self._watching(name))
        return self

    def _watching(self, name):
        def call(target, *args, **kwargs):
            path = self._path(target)
            if path is None or not path.startswith(self.folder) or (name == "open" and not self._creates(args)):
                return self._remembered(name, target, path, self.real[name](target, *args, **kwargs))
            self._perhaps_fail(name, path, target, args)
            result = self._remembered(name, target, path, self.real[name](target, *args, **kwargs))
            self.calls.append((name, path, self._path(args[0]) if name == "replace" else args[:1], os.path.isdir(path)))
            return result

        return call

    def _perhaps_fail(self, name, path, target, args):
        number, self.count = self.count, self.count + 1
        dead = self.happened and (self.error is None or self.lasting)
        if not dead and number != self.at:
            return
        first, self.happened = not self.happened, True
        if self.error is not None:
            if not (self.lasting and name == "unlink"):  # removing works on a full disk
                raise OSError(self.error, os.strerror(self.error), path)
            return
        if first and name == "write":
            self.real["write"](target, bytes(args[0])[: len(args[0]) // 2])
        raise PowerCut

    def _creates(self, args):
        return bool(args and args[0] & os.O_CREAT)

    def _path(self, target):
        if isinstance(target, int):
            return self.handles.get(target) or os.path.realpath(f"/proc/self/fd/{target}")
        return os.path.join(os.path.realpath(os.path.dirname(target) or "."), os.path.basename(target))

    def _remembered(self, name, target, path, result):
        if name == "open":
            self.handles[result] = path
        return result


class AfterPowerLoss:
    """What a disk holds after power is lost, if it keeps no more than it has to.

    Bytes of a file are there once it was synced; a name is as it was when its folder was last synced. `names_kept` is
    the other extreme: all names are as they were last, but bytes that were not synced are gone.
    """

    def __init__(self, folder):
        self.number = 0
        self.bytes, self.synced, self.names, self.kept = {}, {}, {}, {}
        for path in Path(folder).rglob("*"):
            if path.is_file():
                self._new(str(path))
                self.bytes[self.number] = self.synced[self.number] = path.read_bytes()
        self.kept = dict(self.names)

    def _new(self, path):
        self.number += 1
        self.names[path], self.bytes[self.number], self.synced[self.number] = self.number, b"", b""

    def replay(self, calls):
        """Does what was done."""
        for name, path, what, is_folder in calls:
            if name == "open":
                if path not in self.names:
                    self._new(path)
            elif name == "write":
                self.bytes[self.names[path]] += bytes(what[0])
            elif name == "fsync" and is_folder:
                here = {n: i for n, i in self.kept.items() if os.path.dirname(n) != path}
                self.kept = here | {n: i for n, i in self.names.items() if os.path.dirname(n) == path}
            elif name == "fsync":
                self.synced[self.names[path]] = self.bytes[self.names[path]]
            elif name == "replace":
                self.names[what] = self.names.pop(path)
            elif name == "unlink":
                self.names.pop(path, None)
        return self

    def lay_out(self, folder, base, names_kept):
        """Writes what is left into a new folder."""
        for path, number in (self.names if names_kept else self.kept).items():
            new = Path(folder) / os.path.relpath(path, base)
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(self.synced[number])


ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EACCES")}
