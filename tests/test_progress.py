"""What long work shows: a bar on a terminal, plain lines elsewhere."""

import os
import pty
import subprocess
import sys

from vamp_jax.process.progress import Progress

PROGRAM = """
from vamp_jax.process.progress import Progress
with Progress("some work", 20, 5, unit="image") as progress:
    for done in range(6, 21):
        progress.show(done, "loss 1.25")
"""


def test_lines_where_there_is_no_terminal(capsys):
    with Progress("some work", 1000) as progress:
        for done in range(1, 1001):
            progress.show(done, f"loss {done}")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "some work: epoch 0/1000  compiling"  # before the first is done
    assert lines[1] == "some work: epoch 1/1000  loss 1"
    assert lines[-1] == "some work: epoch 1000/1000  loss 1000"
    assert len(lines) < 10  # one every two seconds, not one an epoch


def test_a_bar_on_a_terminal():
    master, slave = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=slave, stdout=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(master)
    text = shown.decode()
    assert "100%" in text and "20/20" in text and "loss 1.25" in text and "image" in text
