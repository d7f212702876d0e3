"""What all command lines share: flags, and a user's mistakes as one message, no traceback."""

import ast
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from experiments import mistakes, overriding
from memarc import paths

CONFIG = config_flags.DEFINE_config_file("config", None, "File of the experiment, configs/*.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder to write to; made if absent.")
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error was found.")

USER_ERROR = 2
"""The exit status after a user's mistake."""

STOPPED = 143
"""The exit status after SIGTERM, as shells report it."""


_HELP = ("-h", "-help", "--help")


def run(main: Callable[[], int | None], fields: Callable[..., str] | None = None) -> None:
    """Parses flags and calls ``main``; an expected error is printed as a message, exit status 2.

    Args:
      main: The command.
      fields: ``config or None -> text``: what --help tells beside the flags.
    """
    app.run(functools.partial(_guarded, main), flags_parser=functools.partial(_parse, fields))


def config() -> dict[str, Any]:
    """The config of --config, as plain values.

    What the command line sets is meant for all of a config's runs: their own values give way, but
    for those of ``config.more``, which are configs of their own (``--config.more.NAME.FIELD``).
    Where a run's name would then be wrong it tells what was set: "lora-eps8+method=bitfit".

    Raises:
      ValueError: If the flag is missing, or its file is.
    """
    if CONFIG.value is None:
        raise ValueError("No --config was given; name a file such as configs/quickstart.py.")
    try:
        list(CONFIG.value)  # A file that is not there shows at the first use only.
    except OSError as error:
        raise ValueError(f"The file of --config cannot be loaded. {error}") from error
    set_here = config_flags.get_override_values(flags.FLAGS[CONFIG.name])
    plain = CONFIG.value.to_dict()
    for path in set_here:
        overriding.give_way(plain, path.split("."))
    return plain


def workdir() -> Path:
    """The folder of --workdir.

    Raises:
      ValueError: If the flag is missing.
    """
    if not WORKDIR.value:
        raise ValueError("No --workdir was given; name the folder to write to.")
    return paths.place(WORKDIR.value)


def _parse(fields: Callable[..., str] | None, argv: Sequence[str]) -> list[str]:
    """Parses flags; loading and overriding a config file fails in many kinds of error."""
    asks = [argument for argument in argv if argument in _HELP]
    try:
        rest = flags.FLAGS([_installed(argument) for argument in argv if argument not in _HELP])
        if asks:
            app.usage(shorthelp=True, writeto_stdout=True)
            print(_shared_flags())
            print(fields(None if CONFIG.value is None else config()) if fields else "")
            sys.exit()
        return rest
    except (flags.Error, ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        said = str(error.args[0] if error.args else error)
        message = mistakes.unknown_field([_installed(argument) for argument in argv]) or said
        if message[:1] == message[-1:] == "'":  # A KeyError quoted within another error.
            message = ast.literal_eval(message)
        if "Traceback (most recent call last)" in message:  # Of a config file; its end says why.
            message = message.strip().splitlines()[-1].strip()
        sys.exit(_complain(message))


def _shared_flags() -> str:
    """What --help tells of flags that several commands share; absl shows a command's own alone."""
    # A command's own flags are under the name of its file.
    modules = sorted(flags.FLAGS.flags_by_module_dict())
    return "\n".join(flags.FLAGS.module_help(x) for x in modules if x.startswith("experiments."))


def _installed(argument: str) -> str:
    """An argument whose config file, if it is not here, is the one that was installed."""
    name, _, value = argument.partition("=")
    if value.startswith("~") and name.lstrip("-") == CONFIG.name:
        return f"{name}={paths.expanded(value)}"
    file = value.partition(":")[0]
    if name.lstrip("-") != CONFIG.name or not file.startswith("configs/") or Path(file).exists():
        return argument
    found = importlib.util.find_spec("configs")
    places = found.submodule_search_locations if found else None
    return argument if not places else argument.replace(file, f"{Path(places[0]).parent / file}", 1)


def _guarded(main: Callable[[], int | None], argv: Sequence[str]) -> None:
    """Calls a command; ends the process with its status, or with one message."""
    if argv[1:]:  # A forgotten "--" would otherwise be ignored in silence.
        sys.exit(_complain(f"Unexpected arguments: {' '.join(argv[1:])}; options start with --."))
    if not flags.FLAGS["verbosity"].present:  # Orbax tells every step of every save.
        logging.set_verbosity(logging.WARNING)
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:  # A user's mistake, or a disk's.
        if TRACEBACK.value:
            raise
        sys.exit(_complain(error))
    except (AssertionError, RuntimeError) as error:
        message = mistakes.no_device(error)
        if TRACEBACK.value or message is None:
            raise
        sys.exit(_complain(message))


def _complain(message: object) -> int:
    """Prints a mistake, and gives the exit status."""
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR
