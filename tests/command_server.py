"""Runs ``python -m sentorder.NAME ...`` and ``python SCRIPT.py ...`` in forks of one process that has imported all.

A command imports torch and transformers for five to eight seconds; a table of a hundred of them would take most of the
time of the tests. Here each still is a process of its own, with its own arguments, folder, environment and files for
standard input, output and error, and ends as any other. One request per line on standard input, one exit code per line
on standard output.
"""

import atexit
import json
import os
import runpy
import sys
import traceback
from typing import Any, NoReturn

import sentorder.evaluation
import sentorder.ordering
import sentorder.predict
import sentorder.train  # noqa: F401


def become(request: dict[str, Any]) -> None:
    """Turn this process into the command."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, path in enumerate(request["streams"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    program = request["program"]
    sys.argv = [program, *request["arguments"]]
    if program.endswith(".py"):
        sys.path[0] = os.path.dirname(program)
        runpy.run_path(program, run_name="__main__")
    else:
        sys.path[0] = request["folder"]
        sys.modules.pop(program, None)  # it is to run as __main__
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def end(request: dict[str, Any]) -> NoReturn:
    """Be the command and end with its code. Python's own end would take apart all that was imported, in two seconds."""
    code: Any = 1
    try:
        become(request)
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def serve() -> None:
    # Unbuffered, so that no fork inherits requests that were read ahead.
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        child = os.fork()
        if child == 0:
            end(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
