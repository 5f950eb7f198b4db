"""The model card that training writes: README.md of an encoder folder, in the hub's layout.

Everything in it comes from the run: data, config, metrics with n and interval, limits of what was
seen, and how to load the encoder.
"""

import os
import re
from collections import Counter
from pathlib import PureWindowsPath
from typing import Any

import draccus
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from invact_vla.core.machine import git_commit, package_versions
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs.clips import ClipTable

_SCORES = {
    "g-g": "ego -> ego", "x-x": "exo -> exo", "cross_scene": "cross-scene (mean of both)",
    "g-x": "ego -> exo", "x-g": "exo -> ego", "cross_view": "cross-view (mean of both)",
}  # fmt: skip
_NEUTRAL = ("out", "overwrite", "workers", "device")  # fields that do not shape the encoder
_SHOWN_VERBS = 30
_LOADING = """```python
from latent_actions.encoder.encoder import InvActEncoder

encoder = InvActEncoder.from_pretrained("this/folder")  # or "owner/name" on the hub
encoder.embed("clip.mp4")                # (1, {d}): the file as one clip
encoder.embed("long.mp4", clip_s=2.0)    # (K, {d}): clips of 2 s
encoder.embed(clips)                     # uint8 (N, {frames}, H, W, 3) -> (N, {d})
```

Similarity is the inner product. No text is needed. Frames of any size are scaled to {size} x {size} \
px; a clip is {frames} frames spread over its span."""
_DURATIONS = """The scores below compare clips by their durations too, of weight {weight:g} beside the \
embedding:

```python
from latent_actions.encoder.duration import with_duration

with_duration(encoder.embed(clips), [1.2, 4.0], {weight:g})  # durations in seconds, one a clip
```"""
# how a path begins that does not start here: /x, C:\\x, \\\\host\\x, file:///x, ~/x, ~user, ../x, x/../x
_START = r"(?:file:|[A-Za-z]:)?[\\/]+|~[\w.-]*(?:[\\/]|$)|(?:[^\s]*[\\/])?\.\.?[\\/]"
_INSIDE = rf"(?<![\w.:\\/~-])(?:{_START})[^\s\"',;:=()\[\]{{}}]+"
_HOMES = ("home", "users")


def model_card(config: Any, table: ClipTable, result: dict[str, Any], parameters: int) -> str:
    """Markdown with a YAML head. config: EncoderTrainConfig; result: of `evaluate`, with
    `unseen_verbs`; parameters: of the encoder."""
    model = config.model
    loading = _LOADING.format(d=model.embedding, frames=model.frames, size=model.size)
    if model.duration_weight and table.seconds is not None:
        loading += "\n\n" + _DURATIONS.format(weight=model.duration_weight)
    sections = [
        f"---\n{_head(result).to_yaml()}\n---",
        f"# InvAct action encoder, {parameters / 1e6:.2f} M parameters",
        "One vector of unit length for a short video clip. It is trained to follow the action, not "
        "the scene or the camera: clips of one action attract each other across scenes and views, "
        "other actions of the same scene repel.",
        "## Load\n\n" + loading,
        "## Data\n\n" + _data(config, table),
        "## Metrics\n\n" + _metrics(result),
        "## Limits\n\n" + _limits(table, result),
        "## Training\n\n" + _training(config),
    ]
    return str(ModelCard("\n\n".join(sections) + "\n"))


def _head(result: dict[str, Any]) -> ModelCardData:
    """Metadata that the hub reads: task, tags, results."""
    data = InvActEncoder._hub_mixin_info.model_card_data.to_dict()
    scores = result["encoders"]["encoder"]
    results = [
        EvalResult(
            task_type="feature-extraction", task_name="action retrieval", dataset_type="video",
            dataset_name="held-out scenes of the training data", metric_type="precision_at_10",
            metric_name=f"P@10 {name} (%)", metric_value=round(scores[name]["p_at_10"], 2),
        )
        for name in ("cross_scene", "cross_view")
    ]  # fmt: skip
    return ModelCardData(model_name="InvAct encoder", eval_results=results, **data)


def _data(config: Any, table: ClipTable) -> str:
    lines = ["| split | clips | moments | scenes | takes | actions |", "|---|---|---|---|---|---|"]
    for split in ("train", "val"):
        rows = table.rows_of(split)
        columns = (table.moment, table.scene, table.take, table.verb)
        counts = [len({column[row] for row in rows}) for column in columns]
        lines.append(f"| {split} | {len(rows)} | " + " | ".join(map(str, counts)) + " |")
    count = Counter(table.verb[row] for row in table.rows_of("train"))
    shown = ", ".join(f"{verb} {n}" for verb, n in count.most_common(_SHOWN_VERBS))
    more = len(count) - _SHOWN_VERBS
    lines += [
        "",
        f"Training clips by action: {shown}" + (f", and {more} more." if more > 0 else "."),
    ]
    return "\n".join(lines) + "\n\n" + _yaml(draccus.encode(config)["data"])


def _metrics(result: dict[str, Any]) -> str:
    level = result["levels"]["scene"]
    lines = [
        "Precision at 10 in percent on the validation scenes, the query's own scene left out of the "
        "gallery; 95 % bootstrap interval over takes.",
        "",
        "| encoder | direction | P@10 | 95 % interval | n |",
        "|---|---|---|---|---|",
    ]
    for encoder, scores in result["encoders"].items():
        for name, words in _SCORES.items():
            s = scores[name]
            interval = f"[{s['low']:.1f}, {s['high']:.1f}]"
            lines.append(f"| {encoder} | {words} | {s['p_at_10']:.1f} | {interval} | {s['n']} |")
    reached = f"Chance {level['chance']:.2f}, a perfect encoder {level['oracle']:.2f}"
    return "\n".join([*lines, "", f"{reached} ({level['n']} queries, {level['groups']} scenes)."])


def _limits(table: ClipTable, result: dict[str, Any]) -> str:
    train, val = ({table.scene[row] for row in table.rows_of(split)} for split in ("train", "val"))
    lines = [
        f"- Trained on {len(train)} scenes, one seed; the intervals say nothing of other seeds.",
        "- A clip is one action: longer videos are to be cut first.",
        "- The license of the data decides what the weights may be used for.",
    ]
    if train & val:
        lines.append(f"- {len(train & val)} of {len(val)} validation scenes were also trained on.")
    unseen = result["unseen_verbs"]
    if unseen:
        lines.append(f"- Validation actions unseen in training: {', '.join(unseen)}.")
    return "\n".join(lines)


def _training(config: Any) -> str:
    resolved = {k: v for k, v in draccus.encode(config).items() if k not in (*_NEUTRAL, "data")}
    versions = ", ".join(f"{name} {version}" for name, version in package_versions().items())
    return f"Commit {git_commit()}; {versions}.\n\n{_yaml(resolved)}"


def _yaml(values: Any) -> str:
    return f"```yaml\n{yaml.safe_dump(without_places(values), sort_keys=False).rstrip()}\n```"


def without_places(value: Any) -> Any:
    """A config in which paths of the machine that trained are cut to their last names: whose home
    they lie in is nobody's business. Names such as "owner/model" stay."""
    if isinstance(value, dict):
        return {without_places(k): without_places(v) for k, v in value.items()}
    if isinstance(value, list):
        return [without_places(v) for v in value]
    if not isinstance(value, str):
        return value
    if re.match(_START, value):
        return _last_name(value)
    return re.sub(_INSIDE, lambda found: _last_name(found[0]), value)


def _last_name(path: str) -> str:
    """The last name of a path of any system; "~" for a home folder, whose name is its user's."""
    found = PureWindowsPath(path)  # takes both kinds of slashes
    is_home = path == os.path.expanduser("~") or found.parent.name.lower() in _HOMES
    return "~" if is_home or found.name.startswith("~") else found.name
