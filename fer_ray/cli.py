"""The ``fer-ray`` command: a subcommand a stage, whose module is imported once its options are checked."""

import importlib
import inspect
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any

from fer_ray.console.interrupts import interrupt_on_sigterm
from fer_ray.console.json_log import log_as_json, tell
from fer_ray.console.messages import redacted
from fer_ray.version import VERSION

LOG_JSON = "--log-json"
"""The option of every stage for JSON on the error stream; ``main`` handles it before anything can fail."""
_MODULES = {"models": "architectures"}  # `fer_ray.models` is the package of the networks


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 unexpected fault, 2 wrong call, 3 bad data, 130 interrupted."""
    arguments = _without_log_json(sys.argv[1:] if arguments is None else arguments)
    interrupt_on_sigterm()
    try:
        sys.exit(make_app()(arguments, prog_name="fer-ray", standalone_mode=False) or 0)
    except KeyboardInterrupt as error:  # while modules are imported
        sys.exit(_fail(error, ["interrupted."], 130))
    except Exception as error:
        if hasattr(error, "format_message"):  # typer's own errors, whose base is click's or a copy of that
            sys.exit(_wrong_call(error))
        trace = "".join(traceback.format_exception(error))
        sys.exit(_report(error, [f"{type(error).__name__}: {error}"], 1, trace, traceback=trace))


def _without_log_json(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without ``--log-json``; if it is among them, the error stream is JSON from now on."""
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    if LOG_JSON in given[:end]:
        log_as_json()
    return [argument for argument in given[:end] if argument != LOG_JSON] + given[end:]


def make_app() -> Any:
    """Return the command as a ``typer.Typer``."""
    import typer  # here, so that Ctrl-C during the import ends in one line

    from fer_ray.config.options import STAGES

    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
    version = typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)

    @app.callback()
    def general(version: Annotated[bool, version] = False) -> None:
        """Facial-expression classifiers on Ray."""

    for name, options in STAGES.items():
        app.command(name, help=options.__doc__)(_command(name, options))
    return app


def _show_version(requested: bool) -> None:
    if requested:
        print(f"fer_ray {VERSION}")
        sys.exit(0)


def _command(name: str, options: type[Any]) -> Callable[..., int]:
    """Return the command of a stage, with ``--log-json`` among its options; it returns the exit code."""
    from typer import Option

    from fer_ray.config.stage_options import checked, command_line
    from fer_ray.errors import FerRayError

    parameters = command_line(options)
    python_only = dict.fromkeys({field.name for field in fields(options) if field.default is MISSING})
    resumes = any(parameter.name == "resume" for parameter in parameters)

    def run(log_json: bool = False, **given: Any) -> int:
        try:
            made = checked(options, **python_only | given)
            importlib.import_module(f"fer_ray.{_MODULES.get(name, name)}").command(made)
        except KeyboardInterrupt as error:
            return _fail(error, [f"interrupted.{' Resume with --resume.' * resumes}"], 130)
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a worker raised
            if not isinstance(cause, FerRayError):
                raise
            return _fail(cause, cause.problems, cause.exit_code)
        return 0

    log = Annotated[bool, Option(LOG_JSON, help="Log, progress and errors as JSON, an object a line.")]
    flag = inspect.Parameter("log_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=log)
    run.__signature__ = inspect.Signature([*parameters, flag])  # type: ignore[attr-defined]
    return run


def _wrong_call(error: Any) -> int:
    """Report an error of typer's, with the usage; return the exit code."""
    if hasattr(error, "message"):
        error.message = error.message.replace("Value error, ", "")  # pydantic's, by way of typer
    shown = io.StringIO()
    error.show(shown)
    return _report(error, [error.format_message()], error.exit_code, shown.getvalue())


def _fail(error: BaseException, problems: Sequence[str], code: int) -> int:
    return _report(error, problems, code, "".join(f"fer-ray: error: {problem}\n" for problem in problems))


def _report(error: BaseException, problems: Sequence[str], code: int, shown: str, **more: str) -> int:
    facts = {"error": type(error).__name__, "exit_code": code, "problems": list(problems), **more}
    if not tell("error", "\n".join(problems), **facts):
        print(redacted(shown), end="", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
