"""metarun watch: once in a pipe, over and over on a terminal; ctrl-C ends it alone."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios

import pytest
from helpers.listed import make_run


def test_in_a_pipe_it_says_once_what_goes_on(metarun):
    assert metarun("watch")[:2] == (0, "no run is going on in outputs and multirun\n")
    make_run("outputs/a", "running", step=7)
    make_run("outputs/b", "done")
    code, out, err = metarun("watch", "once=true")
    assert (code, err) == (0, "")
    assert "7/50" in out
    assert "outputs/a" in out
    assert "outputs/b" not in out
    assert "\x1b" not in out


@pytest.mark.parametrize("words", [["nowhere"], ["every=0"], ["every=nan"], ["every=soon"], ["once=1"]])
def test_what_is_wrong_gets_one_line(metarun, words):
    code, out, err = metarun("watch", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_ctrl_c_ends_it_alone_with_the_terminal_as_it_was(tmp_path):
    make_run(tmp_path / "outputs/a", "running", step=7)
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    before = termios.tcgetattr(terminal)
    process = subprocess.Popen(
        [sys.executable, "-m", "metarun", "watch", "every=0.1"], cwd=tmp_path, stdout=terminal, stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    shown = b""
    while shown.count(b"7/50") < 3:
        shown += os.read(main, 4096)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert termios.tcgetattr(terminal) == before
    assert b"\x1b[?" not in shown, "no mode of the terminal was changed"
    os.close(terminal)
    os.close(main)
