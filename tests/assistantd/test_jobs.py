"""The waiting queue's fairness."""

from assistantd.jobs import FairQueue, Job
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
