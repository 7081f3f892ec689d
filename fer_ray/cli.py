"""The ``fer-ray`` command: one subcommand a stage, each imported only when it is called."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fer_ray import __version__
from fer_ray.errors import FerRayError
from fer_ray.interrupts import interrupt_on_sigterm

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
_HOMES = {"models": "models_stage"}  # `fer_ray.models` is the package of the networks
_HELP = """fer-ray: facial-expression classifiers on Ray.

Usage: fer-ray STAGE [OPTIONS]; fer-ray STAGE --help explains one.

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 unexpected fault, 2 wrong call, 3 bad data, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h"):
        print(_HELP + "\n".join(f"  {stage:10}{text}" for stage, text in STAGES.items()))
        sys.exit(0 if arguments else 2)
    if name == "--version":
        print(f"fer_ray {__version__}")
        sys.exit(0)
    interrupt_on_sigterm()
    try:
        _run(name, arguments[1:])
    except KeyboardInterrupt:  # while modules were being imported
        _fail("interrupted.")
        sys.exit(130)


def _run(name: str, arguments: list[str]) -> None:
    import typer  # here, so that Ctrl-C while it is being imported ends in one line

    from fer_ray.errors import did_you_mean

    if name not in STAGES:
        _fail(f"no stage '{name}'.{did_you_mean(name, STAGES)} The stages are {', '.join(STAGES)}.")
        sys.exit(2)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    command = importlib.import_module(f"fer_ray.{_HOMES.get(name, name)}").command
    app.command(name, help=command.__doc__)(_without_traceback(command))
    app(arguments, prog_name=f"fer-ray {name}")


def _without_traceback(command: Callable[..., None]) -> Callable[..., None]:
    import typer

    remedy = " Go on with --resume." if "resume" in inspect.signature(command).parameters else ""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            _fail(f"interrupted.{remedy}")
            raise typer.Exit(130) from None
        except Exception as error:
            cause = getattr(error, "cause", error)  # Ray wraps what a worker raised
            if not isinstance(cause, FerRayError):
                raise
            for problem in cause.problems:
                _fail(problem)
            raise typer.Exit(cause.exit_code) from None

    return run


def _fail(message: str) -> None:
    print(f"fer-ray: error: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
