"""Damaged files of every kind, by seeded mutations: each command does its work or refuses it in one sentence, in time, in memory.

`COMPRESS_MUTATIONS` says how many in all; `python tests/robustness/test_mutations.py 2000 FOLDER` prints a table of what became of them.
"""

from __future__ import annotations

import itertools
import os
import pickle
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path, PurePath
from typing import Any

import pytest
import torch
from mutations import mutated
from runs import Outcome, Runner
from subjects import TINY, Subject, whole_project

COUNT = int(os.environ.get("COMPRESS_MUTATIONS", "45"))
THOROUGH = COUNT >= 1000
SHARES = 3  # tests that the mutations are divided into


def cases(subjects: list[Subject], count: int) -> Iterator[tuple[Subject, str, str, int]]:
    """Subject, file, command and number of `count` mutations: the kinds take turns, and so do the files and commands of each."""
    pairs = {subject.kind: cycle(subject.pairs) for subject in subjects}
    turns = (subject for turn in itertools.count() for subject in subjects if turn % subject.every == 0)
    for number, subject in enumerate(islice(turns, count)):
        yield subject, *next(pairs[subject.kind]), number


def mutate(runner: Runner, case: tuple[Subject, str, str, int], place: Path) -> tuple[str, Outcome]:
    """The command on a copy of the subject's folder in which one file is mutated; the mutation's name, and what became of it."""
    subject, file, words, number = case
    folder = place / "work" / "here"
    shutil.rmtree(place / "work", ignore_errors=True)
    shutil.copytree(subject.folder, folder)
    name, content = mutated((folder / file).read_bytes(), f"{subject.kind} {file} {number}")
    (folder / file).write_bytes(content)
    return name, runner.run(subject.words(words, file), folder)


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@pytest.fixture(scope="module")
def subjects(runner, tiny_run, tmp_path_factory) -> list[Subject]:
    return whole_project(tmp_path_factory.mktemp("subjects"), tiny_run, runner, thorough=THOROUGH)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_mutated_files_are_read_or_refused_in_a_sentence(runner, subjects, tmp_path, share):
    faults = []
    for case in islice(cases(subjects, COUNT), share, None, SHARES):
        name, outcome = mutate(runner, case, tmp_path)
        if outcome.fault:
            subject, file, words, number = case
            faults.append(f"{subject.kind}, {file}, {name}, number {number}, `{words}`: {outcome.fault}")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_a_whole_file_of_every_kind_is_read(runner, subjects, tmp_path):
    """Else nothing above would have been tried."""
    for subject in subjects:
        folder = tmp_path / subject.kind.replace(" ", "_") / "here"
        shutil.copytree(subject.folder, folder)
        for words, file in {words: file for file, words in subject.pairs}.items():
            outcome = runner.run(subject.words(words, file), folder)
            assert (outcome.fault, outcome.status) == ("", 0), (subject.kind, words, outcome)


class Pickled:
    """What makes a folder where a pickle of it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def pickle_itself(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps(Pickled(mark)))


def torch_pickle(path: Path, mark: Path) -> None:
    """As `torch.save` packs one into an archive."""
    torch.save(Pickled(mark), path)


def deep_json(path: Path, _mark: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def pipe(path: Path, _mark: Path) -> None:
    os.mkfifo(path)


def broken_link(path: Path, _mark: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path, _mark: Path) -> None:
    path.symlink_to(path.name)


def endless_device(path: Path, _mark: Path) -> None:
    path.symlink_to("/dev/zero")


def folder_there(path: Path, _mark: Path) -> None:
    path.mkdir()


STAND_INS = (pickle_itself, torch_pickle, deep_json, pipe, broken_link, link_to_itself, endless_device, folder_there)


def stand_in_cases(subjects: list[Subject], every: bool) -> Iterator[tuple[Subject, str, str, Callable[[Path, Path], None]]]:
    """Subject, file, command and what stands in the file's place: every one of `STAND_INS` for each file, or they take turns."""
    turns = cycle(STAND_INS)
    for subject in subjects:
        of_each_name = {PurePath(file).name: (file, words) for file, words in reversed(subject.pairs)}.values()
        for file, words in subject.pairs if every else of_each_name:
            for put in STAND_INS if every else (next(turns),):
                yield subject, file, words, put


def stand_in(runner: Runner, case: tuple[Subject, str, str, Callable[[Path, Path], None]], place: Path) -> str:
    """What is wrong with what a command does where something else stands in the place of a file; nothing where all is well."""
    subject, file, words, put = case
    folder, mark = place / "work" / "here", place / "mark"
    shutil.rmtree(place / "work", ignore_errors=True)
    shutil.copytree(subject.folder, folder)
    (folder / file).unlink()
    put(folder / file, mark)
    fault = runner.run(subject.words(words, file), folder).fault
    if mark.exists():
        mark.rmdir()
        fault = f"the pickle was run {fault}"
    return f"{subject.kind}, {put.__name__} for {file}, `{words}`: {fault}" if fault else ""


@pytest.mark.slow
def test_what_is_no_such_file_is_refused_and_neither_run_nor_waited_for(runner, subjects, tmp_path):
    """Pickles under every name, pipes, devices, folders, links that lead nowhere, JSON of a hundred thousand levels."""
    faults = [fault for case in stand_in_cases(subjects, THOROUGH) if (fault := stand_in(runner, case, tmp_path))]
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_a_pipe_as_ground_truth_is_never_waited_for(runner, subjects, tmp_path):
    for subject in subjects:
        if subject.kind.startswith("annotations"):
            file, words = next(pair for pair in subject.pairs if pair[0] != "val.txt")
            assert not stand_in(runner, (subject, file, words, pipe), tmp_path)


def main(count: int, place: Path) -> int:
    """Mutations on a folder that is kept; prints each fault as it is found, then a table. Returns how many there were."""
    runner, tallies = Runner(), defaultdict[str, Counter[str]](Counter)
    experiment = place / "experiment"
    os.environ["COMPRESS_CACHE"] = str(place / "cache")
    if not (place / "subjects").exists():
        place.mkdir(parents=True, exist_ok=True)
        done = runner.run(["run", str(TINY), "--out", str(experiment), "--device", "cpu"], place, 600)
        assert done.status == 0, done.err
    shutil.rmtree(place / "subjects", ignore_errors=True)
    subjects = whole_project(place / "subjects", experiment, runner, thorough=True)
    began = time.monotonic()
    for case in cases(subjects, count):
        name, outcome = mutate(runner, case, place)
        became = "faults" if outcome.fault else "read" if outcome.status == 0 else "refused"
        tallies[case[0].kind][became] += 1
        if outcome.fault:
            print(case[3], case[0].kind, case[1], name, f"`{case[2]}`:", outcome.fault, flush=True)
    for kind, tally in {**tallies, "in all": sum(tallies.values(), Counter())}.items():
        print(f"{kind:30} {tally.total():5} mutations: {tally['read']:5} read, {tally['refused']:5} refused, {tally['faults']:3} faults")
    print(f"{time.monotonic() - began:.0f} seconds")
    return sum(tally["faults"] for tally in tallies.values())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])) != 0)
