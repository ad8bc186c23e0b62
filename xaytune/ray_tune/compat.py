"""Names of Ray's that are not public, all of them here: what a new release of Ray may move.

Where one is missing, :func:`check` says so in one message, before anything starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xaytune.errors import SessionError

if TYPE_CHECKING:
    from ray._common.usage import usage_lib as usage_lib
    from ray._private import services as services
    from ray._private import utils as utils
    from ray._private.authentication import authentication_token_setup as authentication_token_setup
    from ray._private.node import Node as Node
    from ray._private.parameter import RayParams as RayParams
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE as DASHBOARD_CLIENT_MAX_SIZE
    from ray._private.ray_constants import get_runtime_env_default_excludes as get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import _dir_travel as _dir_travel
    from ray._private.runtime_env.packaging import _get_excludes as _get_excludes
    from ray._private.worker import global_worker as global_worker
    from ray._raylet import GcsClient as GcsClient  # type: ignore[attr-defined]
    from ray._raylet import persist_port as persist_port  # type: ignore[attr-defined]
    from ray.train._internal.storage import StorageContext as StorageContext
    from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE as ENV_VARS_TO_PROPAGATE
    from ray.tune.execution.tune_controller import TuneController as TuneController
    from ray.tune.schedulers.pb2 import PB2 as PB2

# By the names under which they are imported from here.
_HOMES = {
    "DASHBOARD_CLIENT_MAX_SIZE": "ray._private.ray_constants",
    "ENV_VARS_TO_PROPAGATE": "ray.tune.execution.class_cache",
    "GcsClient": "ray._raylet",
    "Node": "ray._private.node",
    "PB2": "ray.tune.schedulers.pb2",
    "RayParams": "ray._private.parameter",
    "StorageContext": "ray.train._internal.storage",
    "TuneController": "ray.tune.execution.tune_controller",
    "_dir_travel": "ray._private.runtime_env.packaging",
    "_get_excludes": "ray._private.runtime_env.packaging",
    "authentication_token_setup": "ray._private.authentication",
    "get_runtime_env_default_excludes": "ray._private.ray_constants",
    "global_worker": "ray._private.worker",
    "persist_port": "ray._raylet",
    "services": "ray._private",
    "usage_lib": "ray._common.usage",
    "utils": "ray._private",
}
# Methods and attributes that are overridden or called on what is imported.
_MEMBERS = {
    "Node": ("_kill_process_type", "_write_cluster_info_to_kv", "kill_all_processes", "start_gcs_server"),
    "TuneController": (
        "_actor_failed",
        "_actor_started",
        "_actor_stopped",
        "_maybe_add_actors",
        "_maybe_reuse_cached_actor",
        "_maybe_update_trial_queue",
        "_on_training_result",
        "_on_trial_reset",
        "_process_trial_failure",
        "_schedule_trial_actor",
        "_schedule_trial_reset",
        "_schedule_trial_task",
        "_schedule_trial_train",
        "_set_trial_status",
        "_trial_task_failure",
        "_wrapped",
        "pause_trial",
        "stop_trial",
    ),
    "PB2": ("_get_new_config", "_save_trial_state"),
    "services": ("ConsolePopen",),
    "utils": ("get_dashboard_dependency_error",),
}
# What a Ray is started, joined and ended with.
SESSION = tuple(name for name, home in _HOMES.items() if not home.startswith(("ray.train", "ray.tune")))
# What every sweep uses of Tune; what uses PB2, which needs another package, checks it itself.
TUNE = tuple(name for name in _HOMES if name not in (*SESSION, "PB2"))


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    # A name may be a module of that package, or an attribute of it.
    return getattr(module, name) if hasattr(module, name) else importlib.import_module(f"{_HOMES[name]}.{name}")


def check(*names: str) -> None:
    """Checks that the installed Ray has what is used of it.

    Args:
        names: Names of this module, such as those of :data:`SESSION`.

    Raises:
        SessionError: It does not, which its message lists.
    """
    missing: list[str] = []
    for name in names:
        found, path = _find(name), f"{_HOMES[name]}.{name}"
        if found is None:
            missing.append(path)
        else:
            missing += [f"{path}.{member}" for member in _MEMBERS.get(name, ()) if not hasattr(found, member)]
    if missing:
        import ray

        raise SessionError(
            f"Ray {ray.__version__} cannot be used: it has no {', '.join(sorted(missing))}; install a release "
            "that xaytune was tried with: pip install 'ray[tune]==2.60.*'"
        )


def _find(name: str) -> Any:
    try:
        return __getattr__(name)
    except (ImportError, AttributeError):
        return None
