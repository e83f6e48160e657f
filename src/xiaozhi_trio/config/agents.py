"""Agents: their tables laid over those for all devices, and what is wrong between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from xiaozhi_trio.config.device_patterns import DevicePatterns
from xiaozhi_trio.config.values import SettingError, toml_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xiaozhi_trio.config.settings import AgentSettings, Settings

AGENTS = "agents"
"""The list of tables in the file."""


def agent_sections(agent: type[AgentSettings]) -> Sequence[str]:
    """The sections that an agent may have, by the names they have for all devices too."""
    attrs.resolve_types(agent)
    return [
        attribute.name
        for attribute in attrs.fields(agent)
        if attribute.type is not None and attrs.has(attribute.type)
    ]


def laid_over(common: Settings, agent: AgentSettings, given: Mapping[str, Any]) -> AgentSettings:
    """The agent with what its tables leave out as it is for all devices.

    `given` are its tables as they stand in the file, `agent` is what was made of them alone.
    """
    sections = {
        name: _laid_over(getattr(common, name), getattr(agent, name), given.get(name, {}))
        for name in agent_sections(type(agent))
    }
    return attrs.evolve(agent, **sections)


def _laid_over(below: Any, above: Any, given: Mapping[str, Any]) -> Any:
    changes = {}
    for name in given:
        value = getattr(above, name)
        if attrs.has(type(value)):
            value = _laid_over(getattr(below, name), value, given[name])
        changes[name] = value
    return attrs.evolve(below, **changes)


def between_agents(agents: Sequence[AgentSettings]) -> Iterator[SettingError]:
    """What is wrong with agents that are right each by itself."""
    names = [agent.name for agent in agents]
    for place, agent in enumerate(agents):
        if agent.name in names[:place]:
            yield SettingError(
                f"came {toml_of(agent.name)}, which an earlier agent is called too, expected a "
                "name of its own",
                "rename one of them",
                (place, "name"),
            )
        # A pattern is in a set exactly when every device that it means is.
        earlier = DevicePatterns.of(
            pattern for other in agents[:place] for pattern in other.devices
        )
        if all(pattern in earlier for pattern in agent.devices):
            owners = [
                toml_of(other.name)
                for other in agents[:place]
                if any(other.serves(pattern) for pattern in agent.devices)
            ]
            yield SettingError(
                f"came {toml_of(agent.devices)}, which earlier agents have all: "
                f"{', '.join(owners)}; expected a device that none of them has",
                "move this agent before them, or give it other devices",
                (place, "devices"),
            )
