"""Connect to Ray, or start it on this machine, and check requests against what the cluster has."""

import atexit
import logging
import os
import sys
import threading
from typing import Any

import ray
from ray.exceptions import AuthenticationError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_ray.cluster.ray_patches import OWN_GPUS, dead_processes, quiet_notices, redact_entrypoint
from fer_ray.cluster.resources import JOB_VARIABLE, describe_resources, fitting, room
from fer_ray.console.interrupts import interrupt_on_sigterm
from fer_ray.console.progress import say
from fer_ray.errors import FerRayError, UsageError
from fer_ray.storage.object_store import locate, require_answer
from fer_ray.storage.output import Output

LOCAL = "local"
"""The address with which ``ray.init`` starts a new Ray. Without an address it joins the last one started here."""
_STARTS = 3
_PATIENCE_S = 5  # with a thread that Ray Data left; it may wait for a block that never comes
_ITERATOR = "iter_threaded"  # Ray Data's name of its threads that iterate over batches
_VITAL = ("raylet", "gcs_server")


def connect(dashboard: bool = False) -> None:
    """Connect to the cluster that ``RAY_ADDRESS`` names (set inside ``ray job submit``), else start Ray here.

    Does nothing if this process is connected already. The output of workers goes to Ray's log folder only. A Ray
    started here has a dashboard, on loopback, where asked for: Ray Train reads the state of actors from it.
    ``UsageError`` if ``RAY_ADDRESS`` is not an address, or the cluster there refuses the connection.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS") or LOCAL
    options: dict[str, Any] = {"include_dashboard": dashboard} if address == LOCAL else {}
    _require_answer(address)
    try:
        start_ray(address, **options)
    except ValueError as error:
        if address == LOCAL:
            raise
        raise UsageError(
            f"RAY_ADDRESS={address}: not the address of a cluster. Give HOST:PORT, such as 10.0.0.1:6379"
            " (http://HOST:8265 is for `ray job submit`), or unset it to start Ray on this machine."
        ) from error
    except AuthenticationError as error:
        raise UsageError(
            f"RAY_AUTH_MODE={os.environ.get('RAY_AUTH_MODE', '')}: {str(error).split('. ')[0].rstrip('.')}. Put the"
            " cluster's token into ~/.ray/auth_token (`ray get-auth-token --generate` makes one for your own cluster),"
            " or unset RAY_AUTH_MODE if the cluster requires no token."
        ) from error
    except ConnectionError as error:
        mode = os.environ.get("RAY_AUTH_MODE")
        raise UsageError(
            f"RAY_ADDRESS={address}: {error}. Check that the cluster runs (`ray status`). If it requires a token, set"
            f" RAY_AUTH_MODE=token ({f'now {mode}' if mode else 'now not set'}) and put the token into"
            " ~/.ray/auth_token; `ray job submit` does both. To start Ray on this machine, unset RAY_ADDRESS."
        ) from error
    if address == LOCAL:
        total = ray.cluster_resources()
        say(f"Ray started on this machine: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs.")


def _require_answer(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return  # another kind of address, which Ray checks
    remedy = "Start a cluster there (`ray start --head`), correct the address, or unset it to start Ray here."
    require_answer(f"RAY_ADDRESS={address}", host.strip("[]"), int(port), UsageError, remedy)


def start_ray(address: str = LOCAL, **options: Any) -> None:
    """Call ``ray.init`` with the settings that every stage shares; try again if a busy machine is too slow.

    By default a new Ray is started, even if another one runs on this machine.
    """
    # Ray starts workers at niceness 15: beside another busy process they'd get a few per cent of a core.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault(OWN_GPUS, "1")
    if address != LOCAL and OWN_GPUS not in os.environ.get(JOB_VARIABLE, ""):  # Ray refuses to set it twice
        options["runtime_env"] = {"env_vars": {OWN_GPUS: "1"}}
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # else Ray writes colour codes into logs
    redact_entrypoint()
    quiet_notices()
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **options)
            break
        except Exception as error:  # Ray gives nodes 30 s, has no setting for it, and raises no class of its own
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise
            say("Ray did not start in time; trying again.")
            ray.shutdown()
    atexit.register(_end_ray)
    interrupt_on_sigterm()  # Ray's own handler would abort without a message
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False  # the stages show their own
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data.exceptions").setLevel(logging.CRITICAL)  # pages of Ray's own frames


def _end_ray() -> None:
    """Wait for the threads that Ray Data left, as Ray exits with 1 if they use it later; then leave Ray."""
    for thread in threading.enumerate():
        if thread.name == _ITERATOR:
            thread.join(_PATIENCE_S)
    ray.shutdown()


def on_this_node() -> NodeAffinitySchedulingStrategy:
    """Return the scheduling strategy that keeps an actor on this process's node."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def hide_unrequested_gpus() -> None:
    """Hide GPUs that this worker process of Ray's didn't request; needed if somebody else has connected to Ray."""
    if not ray.get_gpu_ids():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def require_running() -> None:
    """Raise ``FerRayError`` if the raylet or the GCS server that this process has started died.

    Ray itself would wait for it, or end the process.
    """
    died = [kind for kind in dead_processes() if kind in _VITAL]
    if died:
        raise FerRayError(
            f"Ray's {' and '.join(died)} on this machine died, and with it all workers. Was it killed, or did the"
            " machine run out of memory? See Ray's log folder, /tmp/ray/session_latest/logs."
        )


def ray_storage(output: Output) -> dict[str, Any]:
    """Return the options of ``RunConfig`` that make Ray write its own files into an output."""
    if not output.is_remote:
        return {"storage_path": str(output.path)}
    filesystem, path = locate(output.path_or_url)
    return {"storage_path": path, "storage_filesystem": filesystem}


class NotPickled:
    """Base class of callbacks that pickle to nothing: Ray Tune saves them in a state that nothing reads."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


def require(count: int, each: dict[str, float], purpose: str) -> None:
    """Raise ``UsageError``, with the arithmetic, if ``count`` workers of ``{"CPU": 1, "GPU": 0.25}`` don't fit."""
    cluster, names = nodes(), [name for name, amount in each.items() if amount]
    available = room(cluster, each)
    if available >= count:
        return
    request = ", ".join(describe_resources({name: each[name] for name in names}))
    resources = "; ".join(
        f"{' and '.join(describe_resources({name: node.get(name, 0) for name in names}))}"
        f" (room for {fitting(node, each)})"
        for node in cluster
    )
    raise UsageError(
        f"{purpose}: {count} × ({request}) requested, room for {available}. {len(cluster)} node(s), with {resources}."
        " Request less, or add nodes to the cluster."
    )


def nodes() -> list[dict[str, float]]:
    """Return the resources of each living node: resource name to amount."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
