"""Order the sentences of new texts, or rate the order in which they stand.

``python -m sentorder.predict --model_path runs/1/model [FILE]``, with ``--score`` for the rating.
"""

from __future__ import annotations

import argparse

from .arguments import PredictArguments
from .command_line import parse_arguments, run_command
from .errors import late_imports


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="One sentence per line with a blank line between documents, or any other layout of files (README lists "
        "them). Without it: standard input.",
    )


def main() -> None:
    """The command line program."""
    arguments, rest = parse_arguments(
        PredictArguments,
        program="python -m sentorder.predict",
        description="Restore the order of the sentences of each document, or rate the order that they have (--score).",
        positional=_add_file,
    )
    with late_imports():  # of torch, for which --help and a mistake need not wait
        from .ordering import order_texts

    order_texts(arguments, rest.file)


if __name__ == "__main__":
    run_command(main)
