"""Scene keys: the groupings of takes under which a query's own scene is left out of its gallery.

The names of Ego-Exo4D's takes are <institution>_<activity><number>_<index>; which grouping the
published table used is not stated, so all are offered and chance is printed beside each.
"""

from collections.abc import Callable, Sequence

from invact_vla.core.errors import UserError
from latent_actions.video.sources.egoexo4d_takes import SceneKey, scene_of

OWN = "scene"  # the clips' own scene, as their source gives it
ALONE = "none"  # nothing but the query's own moment is left out


def _by(key: SceneKey) -> Callable[[str], str]:
    return lambda take: scene_of({"take_name": take}, key)


TAKE_KEYS: dict[str, Callable[[str], str]] = {
    "keyword": _by("keyword"),  # five activities: nearest to the published chance level
    # the same with pcr counted as covid
    "keyword_merged": lambda take: (
        "covid" if _by("keyword")(take) == "pcr" else _by("keyword")(take)
    ),
    # second word of the name without its digits
    "activity": lambda take: _by("institution_activity")(take).partition("_")[2] or take,
    "institution_activity": _by("institution_activity"),  # the published page's demo
    "institution": _by("institution"),
    "capture": _by("capture"),  # name without its last index
    "take": lambda take: take,
}
SCENE_KEYS = (OWN, *TAKE_KEYS, ALONE)


def scene_groups(
    key: str, scenes: Sequence[str], takes: Sequence[str], moments: Sequence[str]
) -> list[str]:
    """Group of every clip under a scene key. UserError when all clips are of one group."""
    if key not in SCENE_KEYS:
        raise UserError(f"no scene key {key!r}: expected one of {', '.join(SCENE_KEYS)}")
    if key in (ALONE, OWN):
        groups = list(moments if key == ALONE else scenes)
    elif key != "take" and any("/" in take for take in takes):
        raise UserError(
            f"the scene key {key!r} reads names of takes such as iiith_cooking_57_2, and these are "
            f"such as {takes[0]!r}: use the keys {OWN}, take or {ALONE}"
        )
    else:
        groups = [TAKE_KEYS[key](take) for take in takes]
    if len(set(groups)) < 2:
        raise UserError(
            f"all {len(groups)} moments are of one scene under the key {key!r}"
            f" ({groups[0] if groups else 'no clips'}): retrieval across scenes needs two or more; "
            "use another scene key"
        )
    return groups
