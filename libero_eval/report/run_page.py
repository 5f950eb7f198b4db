"""The page of one rollout: rates with intervals, videos of every task, failures by min_distance."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from invact_vla.data.video.frames import VideoError, decode_all
from invact_vla.html import media
from invact_vla.html.render import Html, write_page
from libero_eval.env.tasks import instruction
from libero_eval.report.lines import caveats, environment, lines_of, origin, throughput_text
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.report.scope import scope_line
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.command import find_video
from libero_eval.rollout.episode_video import FPS, HOLD_S

TEMPLATES = Path(__file__).parent / "templates"
FAILURES_SHOWN = 30  # the others are folded away
MANY = 100  # videos; from here on a bar shows how far their posters are
UNKNOWN_M = 9.0  # sorts a failure without a distance behind all others


@dataclass(frozen=True)
class Tile:
    """A video of an episode with its outcome and a caption."""

    video: Html
    outcome: str
    words: str


def write_run_page(path: Path, policy: EvaluatedPolicy, videos_per_task: int) -> Path:
    """Write the HTML of a report that lies in the run folder; its videos stay beside it."""
    failures = sorted((row for row in policy.rows if row.outcome == "failure"), key=min_distance)
    return write_page(
        path,
        "run.html.j2",
        TEMPLATES,
        title=f"Rollout of {policy.name}",
        scope=scope_line([policy]),
        lines=lines_of(policy),
        caveats=caveats(policy),
        interval_name=policy.interval_name,
        throughput=throughput_text(policy),
        groups=_videos(policy, videos_per_task),
        failures=[_failure_cells(policy, row) for row in failures],
        shown=FAILURES_SHOWN,
        errors=error_rows(policy.rows + policy.left_out),
        origin=list(origin(policy).items()),
        manifest=environment(policy.manifest),
    )


def min_distance(row: EpisodeRow) -> tuple[float, float]:
    """Sorts episodes: most goals met at once first, then the smallest distance to the unmet ones."""
    fraction = row.goals_best / row.goals_total if row.goals_total else 0.0
    return -fraction, UNKNOWN_M if row.closest_m is None else row.closest_m


def error_rows(rows: list[EpisodeRow]) -> list[list[str]]:
    """Task, init state and reason of every episode that ended as an error."""
    reason = Html("<pre>{}</pre>")
    return [
        [f"{row.task_id}", f"{row.init_index}", reason.format(row.reason.strip())]
        for row in rows
        if row.outcome == "error"
    ]


def tile(row: EpisodeRow, path: Path, href: str, words: str) -> Tile:
    """The video at `path`, linked as `href`, with its last frame as a poster."""
    return Tile(media.linked_video(href, poster(path), words), row.outcome, words)


def poster(path: Path) -> np.ndarray | None:
    """The last picture before the outcome is shown: where the episode ended."""
    try:
        frames = decode_all(path)
    except VideoError:
        return None
    return frames[max(0, len(frames) - 1 - round(FPS * HOLD_S))]


def _videos(policy: EvaluatedPolicy, videos_per_task: int) -> dict[str, list[Tile]]:
    """Task in words -> tiles: successes first, then the failures that came nearest."""
    filmed = [row for row in policy.rows + policy.left_out if find_video(policy.folder, row)]
    filmed.sort(
        key=lambda row: (row.suite, row.task_id, row.outcome != "success", *min_distance(row))
    )
    groups: dict[str, list[Tile]] = {}
    for row in tqdm(filmed, desc="posters", disable=len(filmed) < MANY):
        name = f"{row.suite} {row.task_id}: {instruction(row.task)}"
        tiles = groups.setdefault(name, [])
        path = find_video(policy.folder, row)
        if path is not None and len(tiles) < videos_per_task:
            goals = f"{row.goals_best}/{row.goals_total} goals"
            words = f"init state {row.init_index}, {row.steps} steps, {goals}"
            tiles.append(tile(row, path, path.relative_to(policy.folder).as_posix(), words))
    return {name: tiles for name, tiles in groups.items() if tiles}


def _failure_cells(policy: EvaluatedPolicy, row: EpisodeRow) -> list[str]:
    path = find_video(policy.folder, row)
    link = Html('<a href="{}">video</a>')
    return [
        f"{row.task_id}  {instruction(row.task)}",
        f"{row.init_index}",
        f"{row.goals_best}/{row.goals_total}",
        f"{row.goals_satisfied}/{row.goals_total}",
        "–" if row.closest_m is None else f"{100 * row.closest_m:.1f} cm",
        row.reason.strip().splitlines()[0] if row.reason.strip() else "–",
        link.format(path.relative_to(policy.folder).as_posix()) if path else Html(""),
    ]
