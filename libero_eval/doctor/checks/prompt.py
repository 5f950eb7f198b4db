"""Is the text around the instruction what the model was trained with, and can it be read?"""

from invact_vla.openvla.config import PROMPT
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, warned


def prompt(context: DiagnosticContext) -> Finding:
    """OpenVLA's prompt, and instructions that stay different after the tokenizer."""
    expected = f"{PROMPT!r}, instructions distinguished"
    template = context.config.invact.prompt
    if "{instruction}" not in template:
        return failed(
            expected, f"{template!r} has no {{instruction}}: the words are never shown",
            "correct invact.prompt in config.json",
        )  # fmt: skip
    sequences = context.model.sequences
    texts = [*context.demos.instructions, "open the drawer", "close the drawer"]
    ids = [tuple(sequences.prompt(text)) for text in texts]
    if len(set(ids)) < len(set(texts)):
        return failed(
            expected, "different instructions give the same ids",
            "this tokenizer does not know the words: use the one it was trained with",
        )  # fmt: skip
    text = template.replace("{instruction}", texts[0].lower())
    back = sequences.tokenizer.decode(sequences.tokenizer.encode(text))
    if "".join(text.split()) not in "".join(back.split()):
        return failed(
            expected, f"the tokenizer gives {back!r} back for {text!r}",
            "this tokenizer does not know the words: use the one it was trained with",
        )  # fmt: skip
    if template != PROMPT:
        return warned(
            expected, repr(template),
            "right only if it was trained with this text; see `variants`",
        )  # fmt: skip
    return passed(expected, f"{len(ids[0])} ids")
