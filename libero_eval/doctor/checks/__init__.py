"""The questions, in the order they are asked. `needs` keeps a fault from being named twice."""

from libero_eval.doctor.checks.behavior import image, skill, variants, words, wrist
from libero_eval.doctor.checks.checkpoint import (
    action_statistics,
    chunk,
    loads,
    prompt,
    quantiles,
    tokens,
    training,
)
from libero_eval.doctor.checks.demonstration import conventions, orientation, replay
from libero_eval.doctor.checks.setup import cameras, gl_backend, horizon, render, versions
from libero_eval.doctor.finding import Check

_WORLD = ("gl", "versions")  # the simulator of another MuJoCo may not even load the tasks
_ANSWERS = ("loads", "conventions", "training")

CHECKS = (
    Check(name="gl", run=gl_backend),
    Check(name="versions", run=versions),
    Check(name="render", run=render, needs=_WORLD),
    Check(name="conventions", run=conventions, needs=_WORLD),
    Check(name="orientation", run=orientation, needs=_WORLD),
    Check(name="replay", run=replay, needs=(*_WORLD, "conventions")),
    Check(name="training", run=training, of="checkpoint"),
    Check(name="statistics", run=action_statistics, of="checkpoint"),
    Check(name="quantiles", run=quantiles, of="checkpoint", needs=("statistics", "conventions")),
    Check(name="loads", run=loads, of="policy", needs=("statistics", "conventions")),
    Check(name="horizon", run=horizon, needs=_WORLD),
    Check(name="cameras", run=cameras, of="policy", needs=("loads",)),
    Check(name="prompt", run=prompt, of="checkpoint", needs=("loads",)),
    Check(name="tokens", run=tokens, of="checkpoint", needs=("loads", "quantiles", "conventions")),
    Check(name="variants", run=variants, of="policy", needs=(*_ANSWERS, "orientation")),
    Check(name="image", run=image, of="policy", needs=_ANSWERS),
    Check(name="wrist", run=wrist, of="policy", needs=(*_ANSWERS, "image")),
    Check(name="words", run=words, of="policy", needs=(*_ANSWERS, "prompt", "image")),
    Check(name="chunk", run=chunk, of="checkpoint", needs=(*_ANSWERS, "words")),
    Check(
        name="skill", run=skill, of="policy",
        needs=(*_ANSWERS, "quantiles", "chunk", "prompt", "variants", "image", "wrist", "words"),
    ),
)  # fmt: skip
