"""What a report is made of: names and folders, nothing computed."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class VariantInputs:
    """One variant of the experiment."""

    rollouts: Path  # run folder with episodes.jsonl
    posttrain: Path | None = None  # run folder with metrics.jsonl
    pretrain: Path | None = None  # run folder with metrics.jsonl; None for the variant without it
    start: str = ""  # in words: what this variant started from, and what it was pretrained on
    reported_success_rate: float | None = (
        None  # success that the project page claims for this variant, percent
    )


@dataclass(frozen=True, kw_only=True)
class SampleClip:
    """A labeled clip pair to show."""

    text: str  # what happens in it
    video: Path  # mp4 or webm of the whole clip
    frame: int  # first frame of the pair, counted from 0
    frame_end: int  # last frame of the pair
    codes: dict[str, tuple[int, ...]]  # labeler -> its codes


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything a report shows. What is None or empty is left out, and the report says so."""

    variants: dict[
        str, VariantInputs
    ]  # name -> variant; the first is what the others are compared with
    title: str = "InvAct in miniature"  # heading
    hardware: str = ""  # a sentence on the machine and the time, shown in the summary
    controls: dict[str, Path] = field(default_factory=dict)  # name -> rollouts, e.g. expert
    encoder: Path | None = None  # run folder: retrieval.json, metrics.jsonl, *.png
    laq: Path | None = None  # run folder: metrics.jsonl, *.png
    labels: dict[str, Path] = field(default_factory=dict)  # labeler -> label store
    demos: Path | None = None  # run folder of the demonstrations: summary.json
    samples: tuple[SampleClip, ...] = ()  # clips with their codes
    stages: dict[str, Path] = field(default_factory=dict)  # stage -> run folder, in running order
    videos_per_variant: int = 6  # rollout videos shown for each variant, successes first

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError("a report needs at least one variant")
        if self.videos_per_variant < 0:
            raise ValueError(
                f"videos_per_variant must not be negative, got {self.videos_per_variant}"
            )
