"""The ``fer-ray`` command: one subcommand a stage, each imported only when it is called."""

import functools
import importlib
import inspect
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fer_ray.console.interrupts import interrupt_on_sigterm
from fer_ray.console.json_log import log_as_json, tell
from fer_ray.console.messages import redacted
from fer_ray.errors import FerRayError
from fer_ray.version import VERSION

STAGES = {
    "prepare": "Read face images of any known format into a prepared dataset.",
    "train": "Train one network on a prepared dataset.",
    "tune": "Search hyperparameters and architectures.",
    "evaluate": "Measure a checkpoint on a split.",
    "score": "Label folders of images.",
    "report": "Show runs, searches, evaluations and scoring jobs on one page.",
    "models": "List the architectures.",
    "demo": "Run all stages on drawn faces, in minutes.",
}
LOG_JSON = "--log-json"
"""Every stage's option for what it prints on the error stream; ``main`` sees to it."""
_HOMES = {"models": "architectures"}  # `fer_ray.models` is the package of the networks
_HELP = """fer-ray: facial-expression classifiers on Ray.

Usage: fer-ray STAGE [OPTIONS]; fer-ray STAGE --help explains one.

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 unexpected fault, 2 wrong call, 3 bad data, 130 interrupted."""
    arguments = _without_log_json(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h"):
        print(_HELP + "\n".join(f"  {stage:10}{text}" for stage, text in STAGES.items()))
        sys.exit(0 if arguments else 2)
    if name == "--version":
        print(f"fer_ray {VERSION}")
        sys.exit(0)
    interrupt_on_sigterm()
    try:
        sys.exit(_run(name, arguments[1:]))
    except KeyboardInterrupt as error:  # while modules were being imported
        sys.exit(_fail(error, ["interrupted."], 130))
    except Exception as error:
        sys.exit(_fault(error))


def _without_log_json(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without ``--log-json``; where it is among them, the error stream is JSON from here on."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    if LOG_JSON in given[:end]:
        log_as_json()
    return [argument for argument in given[:end] if argument != LOG_JSON] + given[end:]


def _run(name: str, arguments: list[str]) -> int:
    """Run a stage and return the exit code."""
    import typer  # here, so that Ctrl-C while it is being imported ends in one line

    from fer_ray.errors import UsageError, did_you_mean

    if name not in STAGES:
        wrong = UsageError(f"no stage '{name}'.{did_you_mean(name, STAGES)} The stages are {', '.join(STAGES)}.")
        return _fail(wrong, wrong.problems, wrong.exit_code)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    command = importlib.import_module(f"fer_ray.{_HOMES.get(name, name)}").command
    app.command(name, help=command.__doc__)(_without_traceback(command))
    try:
        return app(arguments, prog_name=f"fer-ray {name}", standalone_mode=False) or 0
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own errors, whose base is click's or a copy of that
            raise
        return _wrong_call(error)


def _without_traceback(command: Callable[..., None]) -> Callable[..., int]:
    """Return the command of a stage with ``--log-json`` among its options; it returns the exit code."""
    import typer

    signature = inspect.signature(command)
    remedy = " Go on with --resume." if "resume" in signature.parameters else ""

    @functools.wraps(command)
    def run(*args: Any, log_json: bool = False, **kwargs: Any) -> int:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as error:
            return _fail(error, [f"interrupted.{remedy}"], 130)
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a worker raised
            if not isinstance(cause, FerRayError):
                raise
            return _fail(cause, cause.problems, cause.exit_code)
        return 0

    option = Annotated[bool, typer.Option(LOG_JSON, help="Log, progress and errors as JSON, an object a line.")]
    flag = inspect.Parameter("log_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), flag])  # type: ignore[attr-defined]
    run.__annotations__ = {**command.__annotations__, flag.name: option}
    return run


def _wrong_call(error: Any) -> int:
    """Say what typer has found, with the usage; return the exit code."""
    code: int = error.exit_code
    said = io.StringIO()
    error.show(said)
    if not tell("error", error.format_message(), **_facts(error, [error.format_message()], code)):
        print(redacted(said.getvalue()), end="", file=sys.stderr)
    return code


def _fail(error: BaseException, problems: Sequence[str], code: int) -> int:
    """Say what a user can mend; return the exit code."""
    if not tell("error", "\n".join(problems), **_facts(error, problems, code)):
        for problem in problems:
            print(redacted(f"fer-ray: error: {problem}"), file=sys.stderr)
    return code


def _fault(error: Exception) -> int:
    """Show an unexpected error with its traceback; return the exit code."""
    trace, text = "".join(traceback.format_exception(error)), f"{type(error).__name__}: {error}"
    if not tell("error", text, **_facts(error, [text], 1), traceback=trace):
        print(redacted(trace), end="", file=sys.stderr)
    return 1


def _facts(error: BaseException, problems: Sequence[str], code: int) -> dict[str, Any]:
    return {"error": type(error).__name__, "exit_code": code, "problems": list(problems)}


if __name__ == "__main__":
    main()
