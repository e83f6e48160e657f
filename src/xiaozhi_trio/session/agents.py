"""Who a device talks to: its agent, found once when its session begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from xiaozhi_trio.config.settings import AgentSettings, Settings
from xiaozhi_trio.session.end_of_turn.registry import StrategyUnavailable, build_end_of_turn
from xiaozhi_trio.session.end_of_turn.strategy import EndOfTurn
from xiaozhi_trio.session.phrases import stock_phrases

if TYPE_CHECKING:
    from collections.abc import Iterator


@attrs.frozen(kw_only=True)
class Agent:
    """What the sessions of some devices share."""

    name: str = ""
    """Empty for the one of the devices that no agent of the settings names."""
    settings: Settings
    end_of_turn: EndOfTurn


@attrs.frozen
class Agents:
    """All of a server's."""

    common: Agent
    """Serves the devices that no other does."""
    _of_devices: Sequence[tuple[AgentSettings, Agent]] = ()
    """The others, the first that names a device before the next."""

    @classmethod
    def of(cls, settings: Settings) -> Agents:
        """Build them. Raises `StrategyUnavailable`, which names the agent."""
        common = Agent(settings=settings, end_of_turn=build_end_of_turn(settings.listening))
        of_devices = []
        for agent in settings.agents:
            try:
                end_of_turn = build_end_of_turn(agent.listening)
            except StrategyUnavailable as error:
                raise StrategyUnavailable(f'agent "{agent.name}": {error}') from error
            led = Agent(name=agent.name, settings=settings.led_by(agent), end_of_turn=end_of_turn)
            of_devices.append((agent, led))
        return cls(common, of_devices)

    def serving(self, device_id: str) -> Agent:
        """The agent of a device, whose id is as the handshake normalises it."""
        serving = (agent for named, agent in self._of_devices if named.serves(device_id))
        return next(serving, self.common)

    def phrases(self) -> Iterator[str]:
        """What any of them says of its own accord, with repeats; see `stock_phrases`."""
        for agent in (self.common, *(agent for _, agent in self._of_devices)):
            yield from stock_phrases(agent.settings.conversation)
