"""Why a trial failed, in words that say what to change."""

from dataclasses import dataclass

from fer_ray.cluster.memory import first_line, is_out_of_memory, killed_for_memory
from fer_ray.config.schema import TrainingConfig
from fer_ray.console.messages import redacted

_LOST = ("ActorDiedError", "ActorUnavailableError", "RayActorError")
"""Names of Ray's errors, which may not be imported here, for a process or node that is gone."""


def advice(training: TrainingConfig) -> str:
    """Return what a run can do that needs less memory."""
    return (
        f"Lower training.batch_size, now {training.batch_size}, or raise training.accumulate, now"
        f" {training.accumulate}, which computes a batch in parts; or choose a smaller network."
    )


@dataclass(frozen=True)
class Failure:
    """The end of a trial that failed.

    Attributes:
        text: as the study keeps it.
        lost: whether its process or node is gone by no fault of its own, as far as can be told: another trial may go on
            with it.
        kind: ``out_of_memory``, ``lost`` or ``error``.
    """

    text: str
    lost: bool
    kind: str


class FailureReader:
    """Reads the errors of a search's trials.

    Args:
        concurrent: trials at once.
        gpu: that each has; below 1 it is a part of one, of whose memory a trial gets no more.
    """

    def __init__(self, concurrent: int, gpu: float = 0):
        self._concurrent, self._gpu, self._killed = concurrent, gpu, killed_for_memory()

    def read(self, error: object) -> Failure:
        """Say what an error means; to be called once for each.

        The kernel kills a process without a word where memory runs out, the one that takes most. It counts how often it
        did, which tells of those on the machine of the driver. Ray's memory monitor says that it killed a process, but
        that needn't be the one that took the memory: so another trial may go on with it.
        """
        text = redacted(str(error).strip()) or type(error).__name__
        gone = type(error).__name__ in _LOST and not getattr(error, "actor_init_failed", False)
        killed, self._killed = self._killed, killed_for_memory()
        if is_out_of_memory(error) or (gone and self._killed > killed):
            by_ray = not gone and type(error).__module__.startswith("ray.")
            text = f"out of memory: {first_line(text)}. {self._advice()}."
            return Failure(text, by_ray, "out_of_memory")
        return Failure(f"its process or its node was lost\n{text}" if gone else text, gone, "lost" if gone else "error")

    def _advice(self) -> str:
        ways = "Lower training.batch_size, or raise training.accumulate, which computes a batch in parts"
        if 0 < self._gpu < 1:
            ways += f", or give a trial more of a GPU (--gpus-per-trial, now {self._gpu:g})"
        if self._concurrent == 1:
            return ways
        return f"{ways}, or train fewer trials at once (--max-concurrent, now {self._concurrent})"
