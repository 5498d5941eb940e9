"""Runs ``python -m sentorder.NAME ...`` in forks of one process that has imported everything already.

A command imports torch and transformers for five to eight seconds; a table of a hundred of them would take most of the
time of the tests. Here each still is a process of its own, with its own arguments, folder, environment and files for
standard input, output and error, and ends as any other. One request per line on standard input, one exit code per line
on standard output.
"""

import json
import os
import runpy
import sys
from typing import Any

import sentorder.evaluation
import sentorder.predict
import sentorder.train  # noqa: F401


def become(request: dict[str, Any]) -> None:
    """Turn this process into the command."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate(request["streams"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.path[0] = request["folder"]
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(request["module"], None)  # it is to run as __main__
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def serve() -> None:
    # Unbuffered, so that no fork inherits requests that were read ahead.
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:
            become(json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
