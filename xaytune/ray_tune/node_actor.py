"""What the actors of a sweep have in common: thin processes of Ray's that are reused for trial after trial.

They are no ``tune.Trainable``: of that the controller calls three methods, and importing Tune would take each a
second and 100 MB.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import ray

from xaytune.errors import Problem
from xaytune.messages import Task
from xaytune.ray_tune.bundles import PLACEMENT_GROUP
from xaytune.ray_tune.shared_storage import not_shared
from xaytune.trial.client.template_client import Template, set_by_ray
from xaytune.trial.common.recipe import portable


class NodeActor:
    """An actor on a node.

    Attributes:
        task: What all trials of the sweep share.
        node: The node, by its address and Ray's id of it.
        environment: What its trials find in their environment.
    """

    task: Task

    def __init__(self) -> None:
        context = ray.get_runtime_context()
        self.node: dict[str, Any] = {"node": ray.util.get_node_ip_address(), "node_id": context.get_node_id()}
        self.environment = _environment(self.task, context.gcs_address)
        self._template: Template | None = None

    def template(self) -> Template:
        """Returns the template of the node.

        Raises:
            TemplateError: It cannot be started.
        """
        if self._template is None:
            self._template = Template(self.task)
        return self._template

    def storage_problem(self) -> Problem | None:
        """Says that the node does not have the sweep's folder."""
        folder = self.task.sweep_dir
        return None if Path(folder).is_dir() else not_shared(folder, self.node["node"])


ActorType = TypeVar("ActorType", bound=NodeActor)


def actor_for(task: Task, kind: type[ActorType]) -> type[ActorType]:
    """Returns the class of a sweep's actors."""
    return type("Trial", (kind,), {"task": portable(task)})


def _environment(task: Task, address: str) -> dict[str, str]:
    """Returns what a trial finds in its environment: this actor's, but that it is no process of Ray's.

    ``ray.init()`` in a recipe finds the sweep's Ray.
    """
    kept = {n: v for n, v in os.environ.items() if not set_by_ray(n, v) or n.startswith("RAY_AUTH")}
    if not task.gpus:
        kept["CUDA_VISIBLE_DEVICES"] = ""
    group = ray.util.get_current_placement_group()
    bundles = {} if group is None else {PLACEMENT_GROUP: group.id.hex()}
    return kept | bundles | {"RAY_ADDRESS": address}
