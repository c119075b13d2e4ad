"""Cut the power at every event of a run, on every kind of disk, and judge what is left.

    cuts = await cut_power(steps, seed=…)
    if cuts.loss is not None: pytest.fail(await shortest(steps, cuts.loss, seconds=…))

A cut that shows a problem is made small: the changes that were lost are put back one after another
as long as the problem stays, and steps are left out as long as some cut still shows one.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from reactive_store.persistence.sqlite_format import Synchronous
from tests.trust.crash.images import Image, Kept, again, image_at, images
from tests.trust.crash.oracle import (
    ACKNOWLEDGED,
    History,
    Required,
    problems_of,
    problems_of_requests,
)
from tests.trust.crash.recording_vfs import Mark, Tape, Write, recording
from tests.trust.crash.workload import Answer, Step, clear, fast_directory, run

__all__ = ["Cuts", "Loss", "cut_power", "cut_recovery", "shortest"]


@dataclass(frozen=True, slots=True)
class Loss:
    """One image on which something is wrong."""

    seed: int
    at: int
    kind: str
    problems: tuple[str, ...]
    lost: tuple[str, ...]  # the changes whose loss is enough to show it

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, power cut after event {self.at}, {self.kind}:"]
        lines += [f"  wrong: {problem}" for problem in self.problems[:5]]
        lines += [f"  lost:  {change}" for change in self.lost[:12]]
        return "\n".join(lines)


@dataclass(slots=True)
class Cuts:
    """What was tried."""

    events: int = 0
    images: int = 0  # that were judged; content that is known to be sound is not judged anew
    different: int = 0  # contents among them
    requests: int = 0  # images on which every request was asked again
    commits: int = 0
    forgiven: int = 0  # images that lack what was acknowledged, and nothing else is wrong
    loss: Loss | None = None


async def cut_power(
    steps: Sequence[Step],
    *,
    seed: int,
    synchronous: Synchronous = "FULL",
    choices: int = 1,
    ask_again_every: int = 40,
    forgive: bool = False,
    skip_start: bool = False,
    until: float = inf,
) -> Cuts:
    """Run the steps on a recorded disk, then judge every image. Stops at the first loss.

    `forgive`: the newest commits may be missing, all that is there must be right. `skip_start`:
    no cuts before the first answer, which is when the files are made and the schema is put in.
    `until`: the time of the monotonic clock at which to stop and be content with what was tried.
    """
    with fast_directory() as directory:
        live_directory = directory / "live"
        clear(live_directory)
        with recording(live_directory) as tape:
            await run(live_directory, tape, steps, seed=seed, synchronous=synchronous)
        return await _judge_tape(
            tape,
            directory / "image",
            seed=seed,
            choices=choices,
            ask_again_every=ask_again_every,
            forgive=forgive,
            skip_start=skip_start,
            until=until,
        )


async def _judge_tape(
    tape: Tape,
    place: Path,
    *,
    seed: int,
    choices: int,
    ask_again_every: int = 0,
    forgive: bool = False,
    skip_start: bool = False,
    until: float = inf,
) -> Cuts:
    """Judge the images of one tape in the directory `place`."""
    history, required, rng = History(tape.events), Required(), random.Random(seed)
    cuts = Cuts(events=len(tape.events), commits=len(history.commits))
    heard = 0
    # Content seen before was sound, up to the timestamp it was found to hold.
    seen: dict[tuple[object, ...], tuple[int, int]] = {}
    for image in images(tape, rng, choices):
        for event in tape.events[heard : image.at]:
            if isinstance(event, Mark):
                required.hear(event.value)
        heard = image.at
        if time.monotonic() > until:
            break
        if skip_start and not any(required.asked.values()):
            continue
        needs = (required.durable_ts, len(required.globals))
        if seen.get(image.key, (-1, -1)) >= needs:
            continue
        seen[image.key] = needs
        cuts.images += 1
        cuts.different = len(seen)
        asks = ask_again_every and cuts.images % ask_again_every == 0
        problems = await _judge(place, image, history, required, seed, reopen=rng.random() < 0.2)
        if asks and not problems:
            cuts.requests += 1
            image.write(_empty(place))
            problems = await problems_of_requests(place, required, seed=seed)
        if problems and forgive and all(each.startswith(ACKNOWLEDGED) for each in problems):
            cuts.forgiven += 1
        elif problems:
            small = image if asks else await _smallest(tape, image, place, history, required, seed)
            lost = tuple(_told(tape, number) for number in small.lost)
            cuts.loss = Loss(seed, image.at, image.kind, tuple(problems), lost)
            break
    shutil.rmtree(place, ignore_errors=True)
    return cuts


async def shortest(
    steps: Sequence[Step],
    loss: Loss,
    *,
    seconds: float,
    choices: int = 1,
    ask_again_every: int = 40,
    synchronous: Synchronous = "FULL",
) -> str:
    """The fewest steps found in `seconds` under which some cut shows a problem, and that problem.

    The loss is printed before anything else, so that it is told whatever becomes of this. The first
    step stays: without the accounts it opens the others mean nothing. Steps that do not run to
    their end are no smaller case of this loss.
    """
    print(loss, flush=True)
    best, until = list(steps), time.monotonic() + seconds
    size = len(best) // 2
    while size:
        at = len(best) - size
        while at >= 1 and time.monotonic() < until:
            fewer = [*best[:at], *best[at + size :]]
            try:
                cuts = await cut_power(
                    fewer,
                    seed=loss.seed,
                    synchronous=synchronous,
                    choices=choices,
                    ask_again_every=ask_again_every,
                    until=until,
                )
            except Exception as error:
                print(f"tried without {size} steps from {at} on: {error!r}"[:500], flush=True)
            else:
                if cuts.loss is not None:
                    best, loss = fewer, cuts.loss
            at -= size
        size //= 2
    return "\n".join(["steps:", *(f"  {step}" for step in best), str(loss)])


async def cut_recovery(
    steps: Sequence[Step], *, seed: int, first_cuts: int, choices: int = 1
) -> Cuts:
    """Cut the power, open what is left, and cut it again at every event of that."""
    total, rng = Cuts(), random.Random(seed)
    with fast_directory() as directory:
        clear(directory / "live")
        with recording(directory / "live") as tape:
            await run(directory / "live", tape, steps, seed=seed, synchronous="FULL")
        history = History(tape.events)
        total.commits = len(history.commits)
        # Moments at which the log holds something are those right after an answer.
        answers = [
            at
            for at, event in enumerate(tape.events)
            if isinstance(event, Mark) and isinstance(event.value, Answer)
        ]
        for at in rng.sample(answers, min(first_cuts, len(answers))):
            required = _required(tape, at + 1)
            image = image_at(tape, at + 1, "any choice", rng)
            place = directory / "first"
            image.write(_empty(place))
            with recording(place, holding=image.files) as second:
                found = await problems_of(place, history, required, seed=at, append=False)
            first = f"seed {seed}, power cut after event {at + 1}, {image.kind}"
            assert not found, f"{first}: {found}"
            cuts = await _judge_recovery(second, directory, history, required, seed, choices)
            if cuts.loss is not None:
                kind = f"recovery after a cut at event {at + 1}, {cuts.loss.kind}"
                cuts.loss = replace(cuts.loss, kind=kind)
            total.events += cuts.events
            total.images += cuts.images
            total.different += cuts.different
            total.loss = cuts.loss
            if total.loss is not None:
                break
    return total


def _required(tape: Tape, at: int) -> Required:
    required = Required()
    for event in tape.events[:at]:
        if isinstance(event, Mark):
            required.hear(event.value)
    return required


async def _judge_recovery(
    tape: Tape, directory: Path, history: History, required: Required, seed: int, choices: int
) -> Cuts:
    cuts, seen = Cuts(events=len(tape.events)), set()
    for image in images(tape, random.Random(seed), choices):
        if image.at <= tape.begun:
            continue
        if image.key in seen:
            continue
        seen.add(image.key)
        cuts.images += 1
        cuts.different += 1
        problems = await _judge(directory / "image", image, history, required, seed, reopen=False)
        if problems:
            lost = tuple(_told(tape, number) for number in image.lost)
            cuts.loss = Loss(seed, image.at, image.kind, tuple(problems), lost)
            break
    return cuts


def _empty(place: Path) -> Path:
    clear(place)
    return place


async def _judge(
    place: Path, image: Image, history: History, required: Required, seed: int, *, reopen: bool
) -> list[str]:
    image.write(_empty(place))
    return await problems_of(place, history, required, seed=seed + image.at, reopen=reopen)


async def _smallest(
    tape: Tape, image: Image, place: Path, history: History, required: Required, seed: int
) -> Image:
    """The image with as few losses as still show a problem."""
    best = image
    for number in image.lost:
        events = tuple(sorted((*best.kept.events, number)))
        trial = again(tape, image, Kept(events, best.kept.torn, best.kept.names))
        if await _judge(place, trial, history, required, seed, reopen=False):
            best = trial
    return best


def _told(tape: Tape, number: int) -> str:
    event = tape.events[number]
    if isinstance(event, Write):
        return f"{number}: {len(event.data)} bytes at {event.offset} of {tape.names[event.file]}"
    return f"{number}: {event}"
