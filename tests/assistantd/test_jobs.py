"""The waiting queue's fairness."""

from concurrent.futures import Future

from hypothesis import given
from hypothesis import strategies as st

from assistantd.jobs import REFUSED_GRACE_S, REFUSED_REMEMBERED, FairQueue, Job
from assistantd.protocol import Chat


def job(client: str, number: int, session: str | None = None) -> Job:
    request = Chat(text="x", session=session)
    return Job(client.encode(), str(number).encode(), request, lambda reply: None)


def take(queue: FairQueue, active: list[Job]) -> Job:
    chosen = queue.candidates(active)[0]
    queue.took_turn(chosen)
    active.append(chosen)
    return chosen


def test_who_asks_little_does_not_wait_for_who_asks_much() -> None:
    queue, active = FairQueue(), []  # type: tuple[FairQueue, list[Job]]
    greedy = [job("greedy", i) for i in range(5)]
    for one in greedy:
        queue.push(one)
    assert take(queue, active) is greedy[0]
    modest = job("modest", 9)
    queue.push(modest)
    assert take(queue, active) is modest
    assert take(queue, active) is greedy[1]


def test_clients_take_turns() -> None:
    queue = FairQueue()
    for number in range(3):
        for client in "abc":
            queue.push(job(client, number))
    order = []
    while len(queue):
        chosen = queue.candidates([])[0]
        queue.took_turn(chosen)
        order.append(chosen.client.decode() + chosen.name)
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_a_session_answers_one_at_a_time() -> None:
    queue, active = FairQueue(), []  # type: tuple[FairQueue, list[Job]]
    first, second, other = job("a", 1, "s"), job("b", 2, "s"), job("c", 3, "t")
    for one in (first, second, other):
        queue.push(one)
    assert take(queue, active) is first
    assert queue.candidates(active) == [other]
    active.clear()
    assert second in queue.candidates(active)


def crowd(queue: FairQueue, names: str, limit: int) -> str:
    """Who of those that come gets a place; the others are refused."""
    got = ""
    for name in names:
        one = job(name, 0)
        if queue.has_place(one, limit, 0, now=0.0):
            queue.push(one)
            got += name
        else:
            queue.refused(one.client, 1.0, now=0.0)
    return got


def test_who_was_refused_first_gets_the_first_free_place() -> None:
    queue = FairQueue()
    assert crowd(queue, "abcdef", 3) == "abc"
    queue.took_turn(queue.candidates([])[0])
    # the place is d's, whoever comes before it
    assert crowd(queue, "zfed", 3) == "d"
    queue.took_turn(queue.candidates([])[0])
    assert crowd(queue, "zfde", 3) == "e"


def test_a_refused_client_keeps_its_turn_before_later_ones() -> None:
    queue = FairQueue()
    assert crowd(queue, "abc", 2) == "ab"
    queue.took_turn(queue.candidates([])[0])
    assert crowd(queue, "c", 2) == "c"
    queue.took_turn(queue.candidates([])[0])
    assert crowd(queue, "a", 2) == "a"
    assert [one.client for one in queue.candidates([])] == [b"c", b"a"]


def test_a_place_is_not_kept_for_who_does_not_come_back() -> None:
    queue = FairQueue()
    assert crowd(queue, "abc", 2) == "ab"
    queue.took_turn(queue.candidates([])[0])
    late = job("z", 0)
    assert not queue.has_place(late, 2, 0, now=1.0)
    assert queue.has_place(late, 2, 0, now=1.0 + REFUSED_GRACE_S + 0.1)
    # who comes late after all has its rank still
    assert queue.n_before(b"c") == 0
    queue.push(late)
    queue.push(job("c", 0))
    assert [one.client for one in queue.candidates([])][-2:] == [b"c", b"z"]
    # nor while there is hardly anything to do
    assert crowd(queue, "yx", 1) == ""
    assert queue.has_place(job("z", 0), 5, 4, now=0.0)


def test_who_has_several_places_gives_one_to_who_has_none() -> None:
    queue = FairQueue()
    greedy = [job("g", i) for i in range(3)]
    for one in greedy:
        queue.push(one)
    assert queue.to_displace(b"m") is greedy[2]
    assert queue.to_displace(b"g") is None
    greedy[2].turn = Future()  # its question is on disk
    assert queue.to_displace(b"m") is greedy[1]
    queue.remove(greedy[1])
    queue.remove(greedy[2])
    assert queue.to_displace(b"m") is None


def test_refused_clients_are_remembered_within_bounds() -> None:
    queue = FairQueue()
    for number in range(2 * REFUSED_REMEMBERED):
        queue.refused(b"%d" % number, 1.0, now=0.0)
    assert queue.n_before(b"new") == REFUSED_REMEMBERED
    queue.forget(b"0")
    assert queue.n_before(b"new") == REFUSED_REMEMBERED - 1


@given(st.lists(st.integers(0, 9), min_size=20, max_size=200), st.integers(1, 4))
def test_nobody_waits_for_more_than_one_turn_of_each_other(
    moves: list[int], max_active: int
) -> None:
    """Whatever comes and ends in which order: a client without an answer under way is not
    overtaken twice by another."""
    queue, active = FairQueue(), []  # type: tuple[FairQueue, list[Job]]
    overtaken: dict[bytes, list[bytes]] = {}
    for number, move in enumerate(moves):
        if move < 6:
            name = f"c{move}"
            queue.push(job(name, number))
        elif active:
            ended = active.pop(move % len(active))
            queue.turn_ended(ended)
            overtaken.pop(ended.client, None)
        while len(active) < max_active and queue.candidates(active):
            chosen = take(queue, active)
            overtaken.pop(chosen.client, None)
            for client in {one.client for one in queue} - {one.client for one in active}:
                overtaken.setdefault(client, []).append(chosen.client)
                assert overtaken[client].count(chosen.client) <= 1
