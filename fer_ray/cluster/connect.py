"""Connect to Ray, or start it on this machine, and check requests against what the cluster has."""

import logging
import os
import sys
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_ray.cluster.resources import JOB_VARIABLE, Resources, describe_resources, fitting, room
from fer_ray.console.interrupts import interrupt_on_sigterm
from fer_ray.console.progress import say
from fer_ray.errors import FerRayError, UsageError
from fer_ray.storage.object_store import locate, require_answer
from fer_ray.storage.outputs import Output
from fer_ray.storage.provenance import command_line


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return the scheduling strategy of an actor for this process's node alone."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


LOCAL = "local"
"""``ray.init``'s word for a Ray of one's own. Without it Ray joins what ``ray start`` last noted on this machine."""
OWN_GPUS = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
"""With this variable Ray hides all GPUs from a process that asked for none; else it leaves all of them in sight."""
_STARTS = 3
_VITAL = ("raylet", "gcs_server")


def connect(dashboard: bool = False) -> None:
    """Connect to the cluster that ``RAY_ADDRESS`` names (set inside ``ray job submit``), else start Ray here.

    Does nothing where this process is connected already. What workers print stays in Ray's log folder; what a user
    needs of it, the stages say themselves.

    Args:
        dashboard: start Ray's dashboard too, on loopback; Ray Train asks it for the state of actors.

    Raises:
        UsageError: ``RAY_ADDRESS`` is no address, or no cluster lets us in there.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    options: dict[str, Any] = {"include_dashboard": dashboard} if address == LOCAL else {}
    _require_answer(address)
    # Ray says at each start that token authentication is on; the README says so once.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        start_ray(address, **options)
    except ValueError as error:
        if address == LOCAL:
            raise
        raise UsageError(
            f"RAY_ADDRESS={address}: is no address of a cluster. Give its HOST:PORT, such as 10.0.0.1:6379"
            " (`ray job submit` alone takes http://HOST:8265), or unset it to start Ray on this machine."
        ) from error
    except AuthenticationError as error:
        raise UsageError(
            f"RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', '')}: {str(error).split('. ')[0].rstrip('.')}. Put the"
            " cluster's token into ~/.ray/auth_token (`ray get-auth-token --generate` makes one for a cluster of your"
            " own), or unset RAY_AUTH_MODE where no token is asked for."
        ) from error
    except ConnectionError as error:
        mode = os.environ.get("RAY_AUTH_MODE")
        raise UsageError(
            f"RAY_ADDRESS={address}: {error}. Check that it runs there (`ray status`). A cluster that asks for a token"
            f" also wants RAY_AUTH_MODE=token, {f'{mode} now' if mode else 'not set now'}, and its token in"
            " ~/.ray/auth_token; `ray job submit` sees to both. To start Ray on this machine, unset RAY_ADDRESS."
        ) from error
    if address == LOCAL:
        total = ray.cluster_resources()
        say(f"Ray started on this machine: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs.")


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # another kind of address, of which Ray says whether it is one
    remedy = "Start a cluster there by `ray start --head`, mend the address, or unset it to start Ray on this machine."
    require_answer(f"RAY_ADDRESS={address}", host.strip("[]"), int(port), UsageError, remedy)


def start_ray(address: str = LOCAL, **options: Any) -> None:
    """Call ``ray.init`` with the settings that every stage shares, again where a busy machine was too slow for it.

    Args:
        address: of a cluster; by default Ray is started here, whatever else runs, or ran, on this machine.
        options: of ``ray.init``, beside those.
    """
    # Ray starts workers at niceness 15: beside any other busy process they'd get a few per cent of a core.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault(OWN_GPUS, "1")
    if address != LOCAL and OWN_GPUS not in os.environ.get(JOB_VARIABLE, ""):  # Ray refuses to set it twice
        options["runtime_env"] = {"env_vars": {OWN_GPUS: "1"}}
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what Ray itself says is in colours else, in a log too
    ray._private.utils.get_entrypoint_name = lambda: command_line(sys.orig_argv)  # for Ray's list of jobs: no secrets
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **options)
            break
        except Exception as error:  # Ray gives its nodes 30 s, which no setting changes, and raises no kind of its own
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise
            say("Ray did not start in time; trying again.")
            ray.shutdown()
    interrupt_on_sigterm()  # Ray's own handler would abort without a word to the user
    quiet_ray_data()


def hide_unasked_gpus() -> None:
    """Hide GPUs from this process of Ray's that it didn't ask for; needed where somebody else has connected to Ray."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def quiet_ray_data() -> None:
    """Turn off Ray Data's own progress bars and notices; the stages show their own, and say what ended them."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that the bars are off
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)  # pages of Ray's own frames


def require_running() -> None:
    """Check that the Ray which this process has started still runs; does nothing where it joined a cluster.

    Raises:
        FerRayError: a process without which nothing goes on has died. Ray itself would wait for it, or end the process.
    """
    node = ray._private.worker._global_node
    died: list[str] = [kind for kind, _ in node.dead_processes() if kind in _VITAL] if node else []
    if died:
        raise FerRayError(
            f"Ray's {' and '.join(died)} on this machine died, and all that ran with it. Was it killed, or was memory"
            " short? Its log folder, /tmp/ray/session_latest/logs, says more."
        )


def ray_storage(output: Output) -> dict[str, Any]:
    """Return the options of ``RunConfig`` that have Ray keep its notes in an output."""
    if not output.is_remote:
        return {"storage_path": str(output.path)}
    filesystem, path = locate(output.shown)
    return {"storage_path": path, "storage_filesystem": filesystem}


class NotPickled:
    """A part of a run of Ray Tune that it leaves out of the state it writes, which nothing reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def require(count: int, each: dict[str, float], purpose: str) -> None:
    """Check that ``count`` workers that each need the given resources fit on the cluster's nodes.

    Args:
        count: workers at once.
        each: resource name to amount a worker, such as ``{"CPU": 1, "GPU": 0.25}``.
        purpose: what the workers are, for the message.

    Raises:
        UsageError: they don't fit; the message shows the arithmetic.
    """
    held = nodes()
    there_is = room(held, each)
    if there_is >= count:
        return
    need = ", ".join(describe_resources({name: amount for name, amount in each.items() if amount}))
    has = "; ".join(_describe(node, each) for node in held)
    raise UsageError(
        f"{purpose}: {count} × ({need}) asked for, room for {there_is}. {len(held)} node(s), with {has}."
        " Ask for less, or add nodes to the cluster."
    )


def nodes() -> list[dict[str, float]]:
    """Return what each living node has: resource name to amount."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def most_on_a_node(each: dict[str, float]) -> int:
    """Return how many workers that each need the given resources fit on the node that has room for most, at least 1."""
    return max([1, *(fitting(node, each) for node in nodes())])


def _describe(node: Resources, each: Resources) -> str:
    parts = describe_resources({name: node.get(name, 0) for name, amount in each.items() if amount})
    return f"{' and '.join(parts)} (room for {fitting(node, each)})"
