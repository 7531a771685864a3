"""The one place where an error becomes a line on standard error and an exit code: never a stack trace.

0 done, 1 it did not succeed, 2 wrong usage or setting, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import typer

from dicom_io.errors import DicomIoError
from node.errors import ConfigError, NodeError

_ROOT = Path(__file__).parents[2]


def run(
    app: typer.Typer,
    arguments: Sequence[str] | None = None,
    trusted: tuple[type[Exception], ...] = (),
) -> int:
    """Run the command line and give its exit code.

    Args:
        app: all commands.
        arguments: without the program's name; by default those of this process. None at all show the help.
        trusted: more errors whose words are one line for people, without patient attributes.
    """
    ours: tuple[type[Exception], ...] = (NodeError, DicomIoError, *trusted)
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(args=given, prog_name="tomonode", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tomonode"
        return _say(f"{error.format_message().rstrip('.')}; see `{path} --help`", error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except ConfigError as error:
        return _say(str(error), 2)
    except ours as error:
        return _say(str(error), 1)
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`); what is left unsaid must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = error.filename if error.filename is not None else _place(error)
        return _say(f"{where}; {error.strerror or type(error).__name__}; check the path", 1)
    except Exception as error:  # noqa: BLE001 - the boundary to the person: every error becomes one line
        return _fault(error)
    return code if isinstance(code, int) else 0


def _fault(error: Exception) -> int:
    """Of an error nobody foresaw only the type and the place are said: its words may quote a data set."""
    return _say(
        f"a fault of the program; {type(error).__name__} at {_place(error)}; please report it", 1
    )


def _place(error: BaseException) -> str:
    place = "unknown place"
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
            place = f"{path.relative_to(_ROOT)}:{frame.lineno}"
    return place


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"tomonode: {' '.join(message.split())}\n")
    return code
