"""Why a trial failed, and the remedy."""

from dataclasses import dataclass

from fer_ray.cluster.memory import first_line, is_out_of_memory, killed_for_memory
from fer_ray.config.schema import TrainingConfig
from fer_ray.console.messages import redacted

_LOST = ("ActorDiedError", "ActorUnavailableError", "RayActorError")
"""Ray's errors for a lost process or node, by name: training without Ray imports this module."""


def advice(training: TrainingConfig) -> str:
    """Return the remedy for a run that needs too much memory."""
    return (
        f"Lower training.batch_size, now {training.batch_size}, or raise training.accumulate, now"
        f" {training.accumulate}, which splits a batch into parts; or choose a smaller network."
    )


@dataclass(frozen=True)
class Failure:
    """The end of a trial that failed."""

    text: str  # the message that the study stores
    kind: str  # ``out_of_memory``, ``lost`` or ``error``


class FailureReader:
    """Reads the errors of a search's trials, so many of which run at once with so many GPUs, or a part of one, each."""

    def __init__(self, concurrent: int, gpu: float = 0):
        self._concurrent, self._gpu, self._killed = concurrent, gpu, killed_for_memory()

    def read(self, error: object) -> Failure:
        """Classify an error; call it once for each error.

        When memory runs out, the kernel kills the process that takes most, and no error says so. Its count of kills
        shows those on the driver's machine.
        """
        text = redacted(str(error).strip()) or type(error).__name__
        gone = type(error).__name__ in _LOST and not getattr(error, "actor_init_failed", False)
        killed, self._killed = self._killed, killed_for_memory()
        if not is_out_of_memory(error) and not (gone and self._killed > killed):
            return Failure(f"its process or node was lost\n{text}", "lost") if gone else Failure(text, "error")
        ways = "Lower training.batch_size, or raise training.accumulate, which splits a batch into parts"
        if 0 < self._gpu < 1:
            ways += f", or give a trial more of a GPU (--gpus-per-trial, now {self._gpu:g})"
        if self._concurrent > 1:
            ways += f", or run fewer trials at the same time (--max-concurrent, now {self._concurrent})"
        return Failure(f"out of memory: {first_line(text)}. {ways}.", "out_of_memory")
