"""How nipype runs workflows: its settings, and the plugin that goes with the resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qsmxt.config import Settings
from qsmxt.workflows.resources import Resources

#: Seconds between two looks of nipype at its queue.
POLLING = 0.1


def execution_config(settings: Settings) -> dict[str, Any]:
    """nipype's settings; they hold for one workflow and are never global."""
    return {
        "poll_sleep_duration": POLLING,
        "stop_on_first_crash": settings.execution.stop_on_first_crash,
        "remove_unnecessary_outputs": False,
        "crashfile_format": "txt",
        "hash_method": "content",
        "create_report": False,
        "check_version": False,
        "use_relative_paths": False,
    }


def is_serial(resources: Resources) -> bool:
    """Whether nodes run one after the other in this process."""
    return resources.plugin == "Linear" or (resources.plugin is None and resources.nprocs == 1)


def is_local(resources: Resources) -> bool:
    """Whether nodes run in workers on this machine."""
    return resources.plugin in (None, "MultiProc") and not is_serial(resources)


def make_plugin(resources: Resources, watch: Callable[[Any, str], None]) -> Any:
    """The plugin: in this process, in workers on this machine, or one of nipype's own as asked for."""
    arguments = {"status_callback": watch, **resources.plugin_args}
    if is_local(resources):
        from qsmxt.workflows.plugin import LocalPlugin

        limits = {"n_procs": resources.nprocs, "memory_gb": resources.mem_gb, "raise_insufficient": False}
        return LocalPlugin(plugin_args={**limits, **arguments})
    if is_serial(resources):
        from nipype.pipeline.plugins.linear import LinearPlugin

        return LinearPlugin(plugin_args=arguments)
    import nipype.pipeline.plugins as plugins

    return getattr(plugins, f"{resources.plugin}Plugin")(plugin_args=arguments)
