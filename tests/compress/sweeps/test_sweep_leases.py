"""Stages that are lent to trials: to one at a time, until it gives them back or is not heard of."""

from __future__ import annotations

import threading
from functools import partial

from compress.sweeps.leases import GIVEN, LAPSE, WANTED, Leases, Requests, lent


def test_a_place_is_lent_to_one_until_it_is_given_back():
    leases = Leases()
    assert leases.hold("baseline", "a")
    assert leases.hold("baseline", "a"), "to hold on is no new wish"
    assert not leases.hold("baseline", "b")
    assert leases.hold("pruned", "b")
    leases.release("baseline", "b")
    assert not leases.hold("baseline", "b"), "nobody gives back what another has"
    leases.release("baseline", "a")
    assert leases.hold("baseline", "b")


def test_who_is_not_heard_of_loses_it_and_who_is_keeps_it():
    now = [0.0]
    leases = Leases(lambda: now[0])
    assert leases.hold("baseline", "a")
    for _ in range(5):
        now[0] += LAPSE / 2
        assert leases.hold("baseline", "a")
    now[0] += LAPSE - 1
    assert not leases.hold("baseline", "b")
    now[0] += 1
    assert leases.hold("baseline", "b")
    assert not leases.hold("baseline", "a")


def test_a_process_waits_until_the_worker_that_watches_it_has_the_place(tmp_path):
    leases, folders = Leases(), {name: tmp_path / name for name in "ab"}
    for folder in folders.values():
        folder.mkdir()
        (folder / GIVEN).write_text('"of one that was killed"')
        (folder / WANTED).write_text('["baseline", "of one that was killed"]')
    requests = {
        name: Requests(folder, partial(leases.hold, holder=name), partial(leases.release, holder=name)) for name, folder in folders.items()
    }
    order: list[str] = []
    may_end = threading.Event()

    def work(name: str) -> None:
        with lent(folders[name], "baseline"):
            order.append(f"{name} begins")
            may_end.wait(20)
            order.append(f"{name} ends")

    def look_until(told: str, *names: str) -> None:
        for _ in range(400):
            for name in names:
                requests[name].look()
            if told in order:
                return
            threading.Event().wait(0.02)
        raise AssertionError(f"{told} is not in {order}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    threads[0].start()
    look_until("a begins", "a")
    threads[1].start()
    for _ in range(20):
        requests["b"].look()
    assert order == ["a begins"]
    may_end.set()
    look_until("b ends", "a", "b")
    for thread in threads:
        thread.join()
    assert order == ["a begins", "a ends", "b begins", "b ends"]
    for request in requests.values():
        request.look()
    assert leases.lent == {}


def test_what_a_killed_process_had_is_given_back(tmp_path):
    leases = Leases()
    requests = Requests(tmp_path, partial(leases.hold, holder="a"), partial(leases.release, holder="a"))
    (tmp_path / WANTED).write_text('["baseline", "1"]')
    requests.look()
    assert not leases.hold("baseline", "b")
    requests.end()
    assert leases.hold("baseline", "b")
