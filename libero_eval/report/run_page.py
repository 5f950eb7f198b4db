"""The page of one rollout: rates with intervals, videos of every task, failures by min_distance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from invact_vla.data.video.decode import VideoError, decode_all
from invact_vla.html import media
from invact_vla.html.charts import interval_bar
from invact_vla.html.page import (
    Html,
    Section,
    blocks,
    details,
    figure,
    grid,
    heading,
    join,
    missing,
    page,
    paragraph,
    safe,
    table,
    tag,
)
from libero_eval.env.tasks import instruction
from libero_eval.report.lines import Line, caveats, lines_of, origin, throughput_text
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.report.text import percent
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.command import find_video
from libero_eval.rollout.episode_video import FPS, HOLD_S

FAILURES_SHOWN = 30  # the others are folded away
TILE_PX, GAP_PX = 165, 18  # width of a video, space between two
MANY = 100  # videos; from here on a bar shows how far their posters are
UNKNOWN_M = 9.0  # sorts a failure without a distance behind all others


def run_page(policy: EvaluatedPolicy, videos_per_task: int) -> str:
    """The HTML of a report that lies in the run folder; its videos stay beside it."""
    lines = lines_of(policy)
    lead = paragraph(f"{lines[-1].counts} episodes solved: {lines[-1].rate_text}.", "lead")
    warnings = [paragraph(caveat, "warn") for caveat in caveats(policy)]
    sections = [
        _result_section(policy, lines),
        _videos_section(policy, videos_per_task),
        _failures_section(policy),
        *_error_sections(policy),
        _environment_section(policy),
    ]
    return page(f"Rollout of {policy.name}", join(lead, *warnings), sections)


def _result_section(policy: EvaluatedPolicy, lines: Sequence[Line]) -> Section:
    rows = [
        [
            line.label,
            line.instruction,
            line.counts,
            line.rate_text,
            Html("") if line.rate is None else _bar(line),
            percent(line.goals_best),
            percent(line.goals_satisfied),
            "–" if line.steps is None else f"{line.steps:.0f}",
        ]
        for line in lines
    ]
    head = ["task", "", "k/n", "success [95 %]", "0 to 100 %", "goals", "at the end", "steps"]
    caption = (
        f"Successes with 95 % {policy.interval_name} intervals. Goals: share of goal predicates true "
        "at once at the best moment, and at the end; steps: mean of the successes."
    )
    parts = [
        table(head, rows, caption=caption, numeric_from=2, has_total=True),
        paragraph(throughput_text(policy), "soft"),
    ]
    return Section("result", "Result", join(*parts))


def _bar(line: Line) -> Html:
    assert line.rate is not None
    return interval_bar(line.rate.value, line.rate.low, line.rate.high)


def min_distance(row: EpisodeRow) -> tuple[float, float]:
    """Sorts episodes: most goals met at once first, then the smallest distance to the unmet ones."""
    share = row.goals_best / row.goals_total if row.goals_total else 0.0
    return -share, UNKNOWN_M if row.closest_m is None else row.closest_m


def _videos_section(policy: EvaluatedPolicy, videos_per_task: int) -> Section:
    filmed = [row for row in policy.rows + policy.left_out if find_video(policy.folder, row)]
    filmed.sort(
        key=lambda row: (row.suite, row.task_id, row.outcome != "success", *min_distance(row))
    )
    groups: dict[tuple[str, int, str], list[Html]] = {}
    for row in tqdm(filmed, desc="posters", disable=len(filmed) < MANY):
        tiles = groups.setdefault((row.suite, row.task_id, row.task), [])
        if len(tiles) < videos_per_task:
            tiles.append(_tile(policy, row))
    parts = [
        (
            join(heading(f"{suite} {task_id}: {instruction(task)}"), grid(tiles, TILE_PX)),
            (TILE_PX + GAP_PX) * len(tiles),
        )
        for (suite, task_id, task), tiles in groups.items()
        if tiles
    ]
    body = blocks(parts) if parts else missing("Videos", "no episode was filmed")
    return Section("videos", "Videos", body)


def _tile(policy: EvaluatedPolicy, row: EpisodeRow) -> Html:
    path = find_video(policy.folder, row)
    assert path is not None
    words = (
        f"init state {row.init_index}, {row.steps} steps, {row.goals_best}/{row.goals_total} goals"
    )
    href = path.relative_to(policy.folder).as_posix()
    video = media.linked_video(href, poster(path), f"{instruction(row.task)}: {row.outcome}")
    return figure(video, Html(f"{tag(row.outcome)} {safe(words)}"), row.outcome)


def poster(path: Path) -> np.ndarray | None:
    """The last picture before the outcome is shown: where the episode ended."""
    try:
        frames = decode_all(path)
    except VideoError:
        return None
    return frames[max(0, len(frames) - 1 - round(FPS * HOLD_S))]


def _failures_section(policy: EvaluatedPolicy) -> Section:
    failures = sorted((row for row in policy.rows if row.outcome == "failure"), key=min_distance)
    title = "Failures, nearest first"
    if not failures:
        return Section("failures", title, paragraph("None."))
    head = ["task", "init state", "goals, best", "at the end", "closest", "ended", ""]
    rows = [_failure_cells(policy, row) for row in failures]
    parts = [
        table(head, rows[:FAILURES_SHOWN], caption="Closest: gripper to an object of the goal.")
    ]
    if len(rows) > FAILURES_SHOWN:
        rest = rows[FAILURES_SHOWN:]
        parts.append(details(f"{len(rest)} more", table(head, rest)))
    return Section("failures", title, join(*parts))


def _failure_cells(policy: EvaluatedPolicy, row: EpisodeRow) -> list[str]:
    path = find_video(policy.folder, row)
    link = Html("")
    if path is not None:
        link = Html(f'<a href="{safe(path.relative_to(policy.folder).as_posix())}">video</a>')
    return [
        f"{row.task_id}  {instruction(row.task)}",
        f"{row.init_index}",
        f"{row.goals_best}/{row.goals_total}",
        f"{row.goals_satisfied}/{row.goals_total}",
        "–" if row.closest_m is None else f"{100 * row.closest_m:.1f} cm",
        row.reason.strip().splitlines()[0] if row.reason.strip() else "–",
        link,
    ]


def _error_sections(policy: EvaluatedPolicy) -> list[Section]:
    errors = [row for row in policy.rows + policy.left_out if row.outcome == "error"]
    if not errors:
        return []
    rows = [
        [f"{row.task_id}", f"{row.init_index}", Html(f"<pre>{safe(row.reason.strip())}</pre>")]
        for row in errors
    ]
    body = table(["task", "init state", "reason"], rows, numeric_from=3)
    return [Section("errors", f"{len(errors)} episodes ended as errors", body)]


def _environment_section(policy: EvaluatedPolicy) -> Section:
    made_with = table(
        ["", ""], [list(pair) for pair in origin(policy)], caption="Measured under", numeric_from=2
    )
    if not policy.manifest:
        absent = missing("Environment manifest", "no manifest.json beside the episodes")
        return Section("environment", "Environment", join(made_with, absent))
    flat = {k: v for k, v in policy.manifest.items() if k != "packages"}
    flat |= policy.manifest.get("packages", {})
    rows = [[name, str(value)] for name, value in flat.items()]
    manifest = table(["", ""], rows, caption="Environment manifest", numeric_from=2)
    return Section("environment", "Environment", join(made_with, manifest))
