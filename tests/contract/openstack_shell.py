"""The `openstack` command as a process that stays: a list of words a line on its input, [code, out, err] a line back.

To start the command takes ten times as long as its call.  It keeps its clients for the life of the process, so each
user of a cloud has a process.  `python -m tests.contract.openstack_shell OPTIONS…` puts the options before every line.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys

from openstackclient.shell import OpenStackShell


def answer(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = OpenStackShell().run(words)
        except SystemExit as ended:  # argparse
            code = ended.code if isinstance(ended.code, int) else 1
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer([*sys.argv[1:], *json.loads(line)])), flush=True)
