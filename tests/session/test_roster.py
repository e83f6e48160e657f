"""One session a device."""

from __future__ import annotations

from xiaozhi_trio.session.roster import REPLACED, Roster
from xiaozhi_trio.wire.closing import GOING_AWAY, Closing


class Ending:
    def __init__(self) -> None:
        self.closings: list[Closing] = []

    def end(self, closing: Closing) -> None:
        self.closings.append(closing)


def test_the_newest_session_of_a_device_wins() -> None:
    roster, old, new, other = Roster(), Ending(), Ending(), Ending()
    with roster.enter("a", other), roster.enter("b", old), roster.enter("b", new):
        assert old.closings == [REPLACED]
        assert not new.closings
        assert not other.closings
        assert len(roster) == 2


def test_the_late_exit_of_the_old_one_does_not_touch_the_new_one() -> None:
    roster, old, new = Roster(), Ending(), Ending()
    old_place = roster.enter("a", old)
    old_place.__enter__()
    new_place = roster.enter("a", new)
    new_place.__enter__()
    old_place.__exit__(None, None, None)
    assert len(roster) == 1
    new_place.__exit__(None, None, None)
    assert len(roster) == 0


def test_all_are_ended_at_shutdown() -> None:
    roster, sessions = Roster(), [Ending(), Ending()]
    closing = Closing(GOING_AWAY, "server_shutdown")
    with roster.enter("a", sessions[0]), roster.enter("b", sessions[1]):
        roster.end_all(closing)
    assert [session.closings for session in sessions] == [[closing], [closing]]
