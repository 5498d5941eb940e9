"""The command line: flags, a ``--config`` file, and every problem reported at once.

Precedence: defaults < ``--config`` file < command line. The parser is transformers' ``HfArgumentParser``; what stands
here on top of it converts the file's values by the type of their field and collects problems instead of stopping at
the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import os
import signal
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from transformers.hf_argparser import HfArgumentParser

from .argument_checks import CheckedArguments
from .errors import INTERRUPTED, INTERRUPTED_CODE, UserError, end_on_interrupt
from .files import write_text

Arguments = TypeVar("Arguments", bound=CheckedArguments)


# --- parsing --------------------------------------------------------------------------------------------------------


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but no 'default: None', where the text says what happens."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


_YES_OR_NO = ("yes", "no", "true", "false", "t", "f", "y", "n", "1", "0")  # as HfArgumentParser reads a switch


class _CollectingParser(HfArgumentParser):
    """Goes on after a value that cannot be read, and keeps a list of what was wrong."""

    def __init__(self, groups: Sequence[Any], **kwargs: Any) -> None:
        self.found: list[str] = []
        hints = [hint for group in groups for hint in get_type_hints(group).items()]
        self.optional = {name for name, hint in hints if type(None) in get_args(hint)}
        super().__init__(list(groups), **kwargs)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.dest in self.optional and arg_string.lower() in ("none", "null"):
            return None
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            self.found.append(f"{_flag(action)}: {error.message}.")
            return action.default  # something that the checks to come can go on with

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value is not None and value not in action.choices:
            choices = ", ".join(str(choice) for choice in action.choices)
            self.found.append(f"{_flag(action)} {value}: choose one of {choices}.")

    def error(self, message: str) -> Any:
        self.found.append(message if message.endswith(".") else f"{message}.")
        raise UserError("\n".join(self.found))


def _flag(action: argparse.Action) -> str:
    return action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)


def parse_arguments(
    kind: type[Arguments],
    argv: Sequence[str] | None = None,
    *,
    program: str,
    description: str,
    choices: Mapping[str, Collection[str]] | None = None,
    positional: Callable[[argparse.ArgumentParser], Any] | None = None,
) -> tuple[Arguments, argparse.Namespace]:
    """Read the command line, and the file that ``--config`` names.

    Args:
        kind: the arguments of a command.
        argv: what follows the program's name; None for ``sys.argv``.
        program: the command, for ``--help``.
        description: one sentence, for ``--help``.
        choices: allowed values of fields that this module does not know them of.
        positional: adds arguments that have no field.

    Returns:
        The arguments, and what ``positional`` added.

    Raises:
        UserError: with every problem in a line of its own.
    """
    parser = _CollectingParser(
        kind.GROUPS or (kind,),
        prog=program,
        description=description,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these arguments.")
    if positional is not None:
        positional(parser)
    formatter = parser._get_formatter()
    operands = [formatter._format_args(action, str(action.metavar)) for action in parser._get_positional_actions()]
    parser.usage = " ".join([program, *operands, "[--config FILE] [--argument value ...]"])
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    for name, values in (choices or {}).items():
        actions[name].choices = list(values)

    argv = list(sys.argv[1:] if argv is None else argv)
    config_parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    config_parser.add_argument("--config")
    try:
        config = config_parser.parse_known_args(argv)[0].config
    except argparse.ArgumentError:
        config = None  # a --config without a file: the real parser says so
    if config is not None:
        _set_defaults_from(parser, actions, Path(config))
    namespace, unknown = parser.parse_known_args(_switches_spelled_out(argv, parser))
    parser.found.extend(f"{item}: there is no such argument." for item in unknown if item.startswith("-"))
    if unknown and not any(item.startswith("-") for item in unknown):
        parser.found.append(f"{unknown[0]}: unexpected value without a flag.")
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values = vars(namespace)
    arguments = kind(**{name: values.pop(name) for name in names})
    problems = parser.found + arguments.problems()
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return arguments, namespace


def _switches_spelled_out(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """``--score FILE`` as ``--score=true FILE``: a switch takes yes or no after it, and nothing else."""
    switches = {flag for action in parser._actions if action.nargs == "?" for flag in action.option_strings}
    following = [*argv, ""][1:]
    return [
        f"{item}=true" if item in switches and after.lower() not in _YES_OR_NO else item
        for item, after in zip(argv, following, strict=True)
    ]


def _set_defaults_from(parser: _CollectingParser, actions: Mapping[str, argparse.Action], path: Path) -> None:
    """Make the file's values the parser's defaults, each through the conversion and choices of its own flag."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--config {path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read ({error}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"--config {path}: not valid YAML ({' '.join(str(error).split())}).") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: expected lines like 'learning_rate: 2e-5'.")
    defaults: dict[str, Any] = {}
    for name, value in values.items():
        action = actions.get(str(name))
        if action is None:
            parser.found.append(f"--config {path}: there is no argument {str(name)!r}.")
        elif value is None:
            if action.dest not in parser.optional:
                parser.found.append(f"--config {path}: {name} must have a value.")
            defaults[name] = None
        elif action.nargs == "+":
            items = value if isinstance(value, list) else [value]
            defaults[name] = [_converted(parser, action, item, path) for item in items]
        elif isinstance(value, (list, dict)):
            parser.found.append(f"--config {path}: {name} takes one value.")
        else:
            defaults[name] = _converted(parser, action, value, path)
    parser.set_defaults(**defaults)


def _converted(parser: _CollectingParser, action: argparse.Action, value: Any, path: Path) -> Any:
    already = len(parser.found)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if value is False and "no" in (action.choices or ()):
        text = "no"  # which YAML takes for false
    converted = parser._get_value(action, text)
    if action.choices is not None:
        parser._check_value(action, converted)
    parser.found[already:] = [f"--config {path}: {problem}" for problem in parser.found[already:]]
    return converted


def write_arguments(arguments: CheckedArguments, path: Path) -> None:
    """Write all arguments as YAML that ``--config`` takes."""
    values = dataclasses.asdict(arguments)  # type: ignore[call-overload]
    write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


# --- running a command ----------------------------------------------------------------------------------------------

USER_ERROR_CODE = 2
DIVERGED_CODE = 3


def run_command(command: Callable[[], Any]) -> None:
    """Run a command line program: a user's mistake or a full disk is a sentence and exit code 2, a loss or output that
    is not finite a sentence and exit code 3, Ctrl-C exit code 130; training has more (see ``stopping.py``)."""
    rank = os.environ.get("RANK", "0")
    origin = "sentorder" if rank == "0" else f"sentorder (process {rank})"
    for stream in (sys.stdout, sys.stderr):  # texts come in as UTF-8, and go out as that whatever the locale is
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is end_on_interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # an exception again, so that files get closed
        command()
    except UserError as error:
        for line in str(error).splitlines():
            print(f"{origin}: error: {line}", file=sys.stderr)
        sys.exit(USER_ERROR_CODE)
    except FloatingPointError as error:
        print(f"{origin}: error: {error}", file=sys.stderr)
        sys.exit(DIVERGED_CODE)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(INTERRUPTED_CODE)
    except BrokenPipeError:  # somebody piped the output into head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # the disk is full, in the middle of a log line
        if error.errno is None:
            raise
        print(f"{origin}: error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr)
        sys.exit(USER_ERROR_CODE)
