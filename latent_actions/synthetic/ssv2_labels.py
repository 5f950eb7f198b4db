"""The label files of the SSV2 tree: train, validation, test and labels.json."""

from typing import Any

from latent_actions.synthetic.takes import TakePlan
from latent_actions.synthetic.vocabulary import ACTIONS, KINDS_NOUN, actions_of


def labels_json(kitchen: bool = False) -> dict[str, str]:
    """{template without brackets: index as a string}, as in the release."""
    names = sorted({_class_name(ACTIONS[name].template) for name in actions_of(kitchen)})
    return {name: str(index) for index, name in enumerate(names)}


def entries_json(plans: list[TakePlan], labeled: bool) -> list[dict[str, Any]]:
    """[{id, label, template, placeholders}]; [{id}] without labels."""
    return [label_of(plan) if labeled else {"id": plan.name} for plan in plans]


def label_of(plan: TakePlan) -> dict[str, Any]:
    """Entry of one clip: the template with its places filled by what was handled."""
    performance = plan.blocks[0].performance
    action = ACTIONS[performance.actions[0]]
    things = [f"{performance.colors[0]} {KINDS_NOUN[performance.kind]}"]
    if performance.partner is not None:
        things.append(KINDS_NOUN.get(performance.partner, performance.partner))
    if action.partner_first:
        things.reverse()
    label = action.template.lower()
    placeholders = things[: action.template.count("[something]")]
    for thing in placeholders:
        label = label.replace("[something]", thing, 1)
    return {
        "id": plan.name, "label": label, "template": action.template, "placeholders": placeholders,
    }  # fmt: skip


def _class_name(template: str) -> str:
    return template.replace("[", "").replace("]", "")
