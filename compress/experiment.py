"""Runs a recipe: skips what is done, resumes what was cut off, measures what was made, and keeps the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from compress import ledger
from compress.before_work import check_before_work
from compress.checkpoint import WEIGHTS, load_untuned
from compress.errors import CompressError, suggestion
from compress.files import digest_said, write_json, write_text
from compress.lab import Lab
from compress.ledger import Row
from compress.outside import allowing
from compress.processes import agreed, device_name, main_process, only_run_in, process_count, together, wait_for_everyone
from compress.progress import say
from compress.recipe import Recipe
from compress.remote_store import Remote, alone_everywhere, check_remote, fetch, folder_for, is_url, send
from compress.rows import ROWS, Timing, hold_to, stage_rows
from compress.runtimes.processor import processor
from compress.session import (
    RECIPE,
    Session,
    cache_key,
    data_fingerprints,
    identified,
    make_lab,
    model_folder,
    prepare,
    states,
    versions,
    wanted_stage,
)
from compress.stage_folder import (
    ELAPSED,
    KEY,
    MANIFEST,
    digests,
    find_cached,
    is_complete,
    partial_folder,
    prepare_partial,
    set_aside,
    set_damaged_aside,
)
from compress.stages import Stage
from compress.store import adopt, alone_at, check_store, give, place_in, take


@dataclass
class Run:
    """A session that is being run.

    timing: which latencies are taken, as in :func:`compress.rows.stage_rows`. store: a folder of finished stages that is shared with
    other experiments. remote: where that folder, then this machine's own, gets stages from and sends them to. rows: the ledger so far.
    finished: folder -> rows, of the teachers' experiments that have been run, shared with theirs.
    """

    session: Session
    device: str
    timing: Timing = "once"
    store: Path | None = None
    remote: Remote | None = None
    rows: list[Row] = field(default_factory=list)
    finished: dict[Path, list[Row]] = field(default_factory=dict)


@allowing()
def run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    redo_from: str | None = None,
    timing: Timing = "once",
    store: str | Path | Remote | None = None,
    device: str = "auto",
    quiet: bool = False,
    estimate: bool = False,
) -> list[Row]:
    """Run the recipe at a path, with `key=value` overrides, and return the rows of its ledger.

    out: the experiment's folder; `experiments/<recipe>` unless said. redo_from: a stage to do again, with all that start from it.
    timing: `again` takes every latency anew, also of what has rows already and of teachers' recipes; `never` leaves latencies to a later
    run. store: a folder of finished stages that other experiments share, or a URL; stages are taken from there, and left there.
    device: `auto`, `cpu` or `cuda`. estimate: say before any work how long the training will take, by a few timed steps.
    Raises CompressError, with everything finished so far kept, for whatever a user can mend.
    """
    from compress.plan import plan_of, trains
    from compress.report.plan import estimate_text
    from compress.training.devices import subnormals_as_zeros

    session = prepare(recipe, overrides, out, quiet=quiet or not main_process())
    if redo_from:
        check_stage(session.recipe, redo_from)
    device_name(device)  # refuses one that is not here
    folder, remote = checked_store(store)
    with subnormals_as_zeros(), together(device):
        check_before_work(session)
        if estimate and trains(session):
            say(estimate_text(plan_of(session)))
        return do_session(Run(session, device, timing, folder, remote), redo_from)


@allowing()
def dry_run(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    redo_from: str | None = None,
    store: str | Path | Remote | None = None,
    device: str = "auto",
) -> list[str]:
    """One line for each stage: where it starts, and the state of its folder. Checks all that a run checks."""
    session = prepare(recipe, overrides, out)
    if redo_from:
        check_stage(session.recipe, redo_from)
    device_name(device)  # refuses one that is not here
    checked_store(store)
    check_before_work(session)
    parents = {stage.name: session.recipe.parent(stage) for stage in session.recipe.stages}
    kinds = {stage.name: stage.kind for stage in session.recipe.stages}
    return [
        f"{name}: {kinds[name]}{f' from {parents[name]}' if parents[name] else ''}: {state}"
        for name, state in states(session, redo_from).items()
    ]


def checked_store(store: str | Path | Remote | None) -> tuple[Path | None, Remote | None]:
    """The folder of a store, and where it is shared beyond this machine. Raises CompressError for what cannot be written into."""
    if store is None or isinstance(store, Path):
        folder, remote = store, None
    elif isinstance(store, Remote) or is_url(store):
        remote = store if isinstance(store, Remote) else Remote(store)
        folder = folder_for(remote.url)
        check_remote(remote.url)
    else:
        folder, remote = Path(store), None
    check_store(folder)
    return folder, remote


def check_stage(recipe: Recipe, name: str) -> None:
    """Refuse the name of a stage that is not there."""
    names = [stage.name for stage in recipe.stages]
    if name not in names:
        raise CompressError(f"--from {name}: the recipe has no such stage{suggestion(name, names)}")


def do_session(run: Run, redo_from: str | None = None) -> list[Row]:
    """All stages in their order; from `redo_from` on, those that start from a stage done again are done again. Returns all rows."""
    session = run.session
    session.folder.mkdir(parents=True, exist_ok=True)
    with only_run_in(session.folder):
        if main_process():
            write_text(session.folder / RECIPE, session.recipe.dump())
        redone: set[str] = set()
        for stage in session.recipe.stages:
            again = stage.name == redo_from or not redone.isdisjoint((session.recipe.parent(stage) or "", *stage.other_models()))
            if again:
                redone.add(stage.name)
            do_stage(run, stage, again=again)
    return run.rows


def do_stage(run: Run, stage: Stage, *, again: bool) -> None:
    """Bring one stage to completion, measure it, add its rows to the ledger, and hold it to what is expected of it."""
    session, folder = run.session, run.session.folder
    do_teachers(run, stage)
    key = cache_key(session, stage.name)
    place = place_in(run.store, stage.name, session.recipe.parent(stage), key) if run.store else None
    rows: list[Row] = []
    with alone_at(place), alone_everywhere(run.remote, place):
        if not agreed(lambda: not again and (is_cached(session, stage) or is_taken(run, place, stage, key))):
            if main_process():
                adopt(place, folder, stage.name, key)
            work(run, stage, key)
        elif not session.quiet:
            say(f"{stage.name}: in the cache")
        if main_process():
            teachers = teacher_rows(run, stage)
            rows = stage_rows(session, stage, lab_of(run, folder / stage.name, stage), run.rows, timing=run.timing)
            give(place, folder / stage.name, key, ROWS)
            send(run.remote, place)
    if main_process():
        run.rows += [*teachers, *rows]
        ledger.write(folder, [*run.rows, *rows_to_come(session, stage)])
        hold_to(stage, rows, run.rows)
    wait_for_everyone()


def is_cached(session: Session, stage: Stage) -> bool:
    """Whether the stage is complete; what is damaged of it is named and moved out of the way."""
    for told in set_damaged_aside(session.folder, stage.name, cache_key(session, stage.name)):
        say(f"{stage.name}: {told}")
    return find_cached(session.folder, stage.name, cache_key(session, stage.name))


def is_taken(run: Run, place: Path | None, stage: Stage, key: str) -> bool:
    """Whether the stage was in the store, and is now in the experiment."""
    fetch(run.remote, place, key)
    return take(place, run.session.folder, stage.name, key)


def rows_to_come(session: Session, stage: Stage) -> list[Row]:
    """What the ledger has of the stages after `stage` as they are now: a run that is cut off loses no row."""
    try:
        known = ledger.read(session.folder)
    except CompressError:
        return []
    names = [other.name for other in session.recipe.stages]
    later = set(names[names.index(stage.name) + 1 :])
    return [row for row in known if (name := row.stage.split("/")[0]) in later and row.key == cache_key(session, name)]


def do_teachers(run: Run, stage: Stage) -> None:
    """Run the recipes whose models the stage needs, where this run has not yet."""
    for name in stage.other_models():
        its = run.session.others.get(name)
        if its is None or its.folder in run.finished:
            continue
        if not run.session.quiet:
            say(f"teacher: {its.path.name}")
        run.finished[its.folder] = do_session(replace(run, session=its, rows=[]))


def teacher_rows(run: Run, stage: Stage) -> list[Row]:
    """The rows of teachers that are recipes, each measured in its own experiment, for the table of the student, where each stands once.

    The first in the table is called `teacher`, any other `teacher/<its experiment>`.
    """
    session, rows = run.session, list[Row]()
    for name in stage.other_models() if stage.others_have_rows else ():
        its = session.others.get(name)
        row = next((row for row in run.finished[its.folder] if row.stage == wanted_stage(its, name)), None) if its else None
        artefact = os.path.relpath(model_folder(session, name), session.folder)
        before = [known for known in (*run.rows, *rows) if known.kind == "teacher"]
        if its is None or row is None or any(known.artefact == artefact for known in before):
            continue
        called = f"teacher/{its.folder.name}" if before else "teacher"
        found = row.model_copy(update={"stage": called, "kind": "teacher", "artefact": artefact})
        rows.append(ledger.against(run.rows[0] if run.rows else found, found))
    return rows


def work(run: Run, stage: Stage, key: str) -> None:
    """Apply the stage in its partial folder, resuming one of the same key, and rename it when it is complete."""
    session, partial = run.session, partial_folder(run.session.folder, stage.name)
    parent = session.recipe.parent(stage)
    if main_process():
        for told in prepare_partial(partial, key):
            say(f"{stage.name}: {told}")
    wait_for_everyone()
    if not session.quiet:
        say(f"{stage.name}: {stage.kind}{f' from {parent}' if parent else ''}")
    if not agreed(lambda: is_complete(partial, key)):
        model = load_untuned(session.folder / parent) if parent else None
        lab = lab_of(run, partial, stage)
        if stage.every_process() or main_process():
            stage.apply(model, lab)
        wait_for_everyone()  # the others read what the stage has left, and here it is moved
        if main_process():
            write_manifest(session, stage, key, lab)
    if main_process():
        finish(session, stage, partial)
    wait_for_everyone()


def write_manifest(session: Session, stage: Stage, key: str, lab: Lab) -> None:
    """Write down what the stage in the lab's folder is and what it left there. From here on it is complete."""
    write_json(
        lab.folder / MANIFEST,
        {
            "stage": stage.name,
            "kind": stage.kind,
            "parent": session.recipe.parent(stage),
            "key": key,
            "config": identified(session, stage, stage.model_dump(mode="json", by_alias=True)),
            "data": data_fingerprints(session, stage),
            "versions": versions(stage),
            "seed": session.recipe.seed,
            "seconds": round(lab.elapsed(), 2),
            "cpu": processor(),
            "threads": os.cpu_count(),
            "processes": process_count(),
            "device": str(lab.device),
            "artefacts": lab.artefacts,
            "weights": digest_said(lab.folder / WEIGHTS),
            "files": digests(lab.folder, leave_out=(KEY, ELAPSED)),
        },
    )


def finish(session: Session, stage: Stage, partial: Path) -> None:
    """Put a complete stage in its place. What lets it be taken up again goes last, so that a fault here costs no work."""
    place = session.folder / stage.name
    set_aside(session.folder, stage.name)
    partial.rename(place)
    for leftover in (KEY, ELAPSED):
        (place / leftover).unlink(missing_ok=True)


def lab_of(run: Run, folder: Path, stage: Stage) -> Lab:
    """The surroundings of one stage on the run's device."""
    return make_lab(run.session, folder, stage, device_name(run.device), quiet=run.session.quiet or not main_process())
