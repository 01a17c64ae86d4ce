"""What the commands print of jobs: one object, one table, or one line per update."""

from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TypeVar

from manager_service.client import as_json, fleet_tables, render, summary, update_json
from manager_service.client.client import ManagerClient
from manager_service.client.errors import ClientError
from manager_service.client.estimates import Estimate, in_all, time_left
from manager_service.client.exits import ExitCode, code_of_job
from manager_service.client.follow import trouble
from manager_service.client.groups import gathered
from manager_service.client.options import ParentState
from manager_service.client.talk import put, tell
from manager_service.client.words import about, moment, safe, spoken
from overhaul.v1 import fleet_service_pb2, job_pb2

ItemT = TypeVar("ItemT")


async def show_job(client: ManagerClient, job_id: str, *, as_object: bool) -> None:
    """Print a parent job with its children; where there is none of this id, the child job with its attempts."""
    try:
        parent_job = await client.get_parent_job(job_id)
    except ClientError as error:
        if error.reason != "PARENT_JOB_NOT_FOUND":
            raise
        await _show_child(client, job_id, error, as_object=as_object)
        return
    children = [child async for child in client.list_child_jobs(job_id)]
    left = time_left(parent_job, children, datetime.now(UTC))
    if as_object:
        whole = as_json.job(parent_job, children)
        put(as_json.text({**whole, "expected_seconds_left": as_json.seconds(left.span if left else None)}))
        return
    screen = render.console()
    screen.print(render.parent_table([parent_job]))
    screen.print(render.child_table(children))
    _print_reasons(children)
    _print_lines(summary.totals_lines(parent_job.totals, children))
    if left is not None:
        tell(f"{about(left.span)} left{_but_for(left)}")


async def _show_child(client: ManagerClient, job_id: str, no_parent: ClientError, *, as_object: bool) -> None:
    try:
        found = await client.get_child_job(job_id)
    except ClientError as error:
        if error.reason == "CHILD_JOB_NOT_FOUND":
            raise no_parent from error
        raise
    if as_object:
        attempts = [as_json.attempt(attempt) for attempt in found.attempts]
        put(as_json.text({"child_job": as_json.child_job(found.child_job), "attempts": attempts}))
        return
    screen = render.console()
    screen.print(render.child_table([found.child_job]))
    screen.print(render.attempt_table(found.attempts))
    if found.child_job.before or found.child_job.after:
        screen.print(summary.measure_table(found.child_job))
    _print_reasons([found.child_job])
    _print_lines(summary.waiter_lines(found.child_job.lock_waiters))


async def show_list(
    client: ManagerClient,
    states: Sequence[ParentState],
    labels: dict[str, str],
    target: str,
    *,
    limit: int,
    as_object: bool,
) -> None:
    """Print parent jobs."""
    numbers = [job_pb2.ParentJobState.Value(f"PARENT_JOB_STATE_{state.name}") for state in states]
    found = client.list_parent_jobs(states=numbers, labels=labels, target=target, page_size=min(limit, 500))
    parents = await first(found, limit + 1)
    shown = parents[:limit]
    if as_object:
        put(as_json.text({"parent_jobs": [as_json.parent_job(parent) for parent in shown]}))
    else:
        render.console().print(render.parent_table(shown))
    if len(parents) > limit:
        tell(f"there are more than {limit}; show more with --limit")


async def first(items: AsyncIterable[ItemT], limit: int) -> list[ItemT]:
    """Return at most so many items, reading no page beyond them."""
    found: list[ItemT] = []
    async for item in items:
        found.append(item)
        if len(found) == limit:
            break
    return found


async def print_updates(client: ManagerClient, parent_job_id: str) -> ExitCode:
    """Print every update of a watch as a line, and return what the end of the job is worth."""
    await client.get_parent_job(parent_job_id)  # a manager that is down is told at once, not waited for
    watch = client.watch_parent_job(parent_job_id, on_trouble=lambda error: tell(trouble(error)))
    async with aclosing(watch) as updates:
        async for update in updates:
            put(as_json.text(update_json.update(update)))
    return code_of_job(await client.get_parent_job(parent_job_id))


async def print_logs(
    client: ManagerClient, child_job_id: str, attempt: int, *, follow: bool, as_objects: bool
) -> None:
    """Print the entries of a log as they come; say so when there are none, and how the attempt ended."""
    printed = 0
    async with aclosing(client.read_logs(child_job_id, attempt=attempt, follow=follow)) as chunks:
        async for chunk in chunks:
            for entry, line in zip(chunk.entries, as_json.log_lines(chunk), strict=True):
                put(as_json.text(line) if as_objects else log_line(entry))
                printed += 1
            attempt = chunk.attempt
    if not printed:
        tell(f"attempt {attempt} wrote no log lines" if attempt else "no log lines were written")
    _tell_end(attempt, (await client.get_child_job(child_job_id)).attempts)


def _tell_end(number: int, attempts: Sequence[job_pb2.Attempt]) -> None:
    """Tell why an attempt, 0 for the newest, did not complete: a failure is no line of its log."""
    wanted = number or max((one.attempt for one in attempts), default=0)
    for one in attempts:
        if one.attempt == wanted and one.HasField("end_time") and one.outcome != job_pb2.OUTCOME_COMPLETED:
            how = spoken(one, "outcome") or "ended without a report"
            tell(f"attempt {one.attempt} {how}: {one.failure.message or one.reason}")


def log_line(entry: job_pb2.LogEntry) -> str:
    """Return an entry of a log for people."""
    when = moment(entry, "time")
    clock = "" if when is None else when.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return f"{clock} {safe(entry.level):7} {safe(entry.message)}".lstrip()


def show_end(parent_job: job_pb2.ParentJob, children: Sequence[job_pb2.ChildJob], *, as_object: bool) -> None:
    """Print what a job that ended did: before and after, with the reasons beneath."""
    _warn(children)
    if as_object:
        put(as_json.text(as_json.job(parent_job, children)))
        return
    groups, alone = gathered(children)
    render.console().print(render.outcome_table(alone))
    _print_reasons([child for child in alone if not render.was_skipped(child)])
    if groups:
        render.console().print(render.group_table(groups))
        for group in groups:
            for why, number in group.reasons:
                put(safe(f"{group.operation} {group.target}: {number} skipped: {why}"))
        tell(f"shown in sum: {sum(len(group.children) for group in groups)} children; `--output json` has each")
    _print_lines(summary.totals_lines(parent_job.totals, children))
    tell(f"job {parent_job.id} {spoken(parent_job, 'state')}")


def show_plan(parent_job: job_pb2.ParentJob, children: Sequence[job_pb2.ChildJob], *, as_object: bool) -> None:
    """Print what would be done to which objects, and what would not and why."""
    _warn(children)
    if as_object:
        put(as_json.text(as_json.job(parent_job, children)))
        return
    if not parent_job.id:
        render.console().print(render.child_table(children))
        tell(f"would create {len(children)} child jobs; nothing was stored")
        _tell_expected(children, parent_job.max_parallel)
        return
    planned = [child for child in children if not render.is_inspection(child)]
    chosen = [child for child in planned if render.is_planned(child)]
    left_out = len(planned) - len(chosen)
    render.console().print(render.plan_table(planned))
    _print_reasons([child for child in children if render.is_inspection(child) and not render.was_skipped(child)])
    left = f", {left_out} left out" if left_out else ""
    tell(f"would create {len(chosen)} child jobs{left}; nothing was changed")
    _tell_expected(chosen, parent_job.max_parallel)


def _tell_expected(children: Sequence[job_pb2.ChildJob], max_parallel: int) -> None:
    """Tell how long children will take, as far as such ones completed before."""
    if not children:
        return
    alone, together = in_all(children), in_all(children, at_once=max(max_parallel, 1))
    if alone is None or together is None:
        tell("how long that takes is not known: none of it completed before")
        return
    side_by_side = f", {about(together.span)} with {max_parallel} at once" if max_parallel > 1 else ""
    tell(f"that takes {about(alone.span)} one after the other{side_by_side}{_but_for(alone)}")


def _but_for(estimate: Estimate) -> str:
    return f", not counting {estimate.unknown} of which nothing is known" if estimate.unknown else ""


def show_parent(parent_job: job_pb2.ParentJob, *, as_object: bool) -> None:
    """Print a parent job alone."""
    if as_object:
        put(as_json.text(as_json.job(parent_job)))
    else:
        render.console().print(render.parent_table([parent_job]))


def show_gone(what: str, name: str, *, as_object: bool) -> None:
    """Print that something is no more."""
    put(as_json.text({what: name}) if as_object else f"{what} {safe(name)}")


def show_workers(workers: Sequence[fleet_service_pb2.Worker], *, as_object: bool) -> None:
    """Print workers."""
    if as_object:
        put(as_json.text({"workers": [as_json.worker(worker) for worker in workers]}))
    else:
        render.console().print(fleet_tables.worker_table(workers))


def show_worker(worker: fleet_service_pb2.Worker, *, as_object: bool) -> None:
    """Print one worker."""
    if as_object:
        put(as_json.text({"worker": as_json.worker(worker)}))
    else:
        render.console().print(fleet_tables.worker_table([worker]))


def show_targets(targets: Sequence[fleet_service_pb2.Target], *, as_object: bool) -> None:
    """Print targets."""
    if as_object:
        put(as_json.text({"targets": [as_json.target(target) for target in targets]}))
    else:
        render.console().print(fleet_tables.target_table(targets))


def show_target(target: fleet_service_pb2.Target, *, as_object: bool) -> None:
    """Print one target."""
    if as_object:
        put(as_json.text({"target": as_json.target(target)}))
    else:
        render.console().print(fleet_tables.target_table([target]))


def _warn(children: Iterable[job_pb2.ChildJob]) -> None:
    """Warn of targets to which nothing is done, which looks like success: a selection may be mistyped."""
    for line in render.reasons(filter(render.was_skipped, children)):
        tell(f"warning: {line}")


def _print_reasons(children: Sequence[job_pb2.ChildJob]) -> None:
    _print_lines(render.reasons(children))


def _print_lines(lines: Sequence[str]) -> None:
    screen = render.console()
    for line in lines:
        screen.print(line, soft_wrap=True)
