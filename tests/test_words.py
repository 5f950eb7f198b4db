"""The field's words: what was once called otherwise is found nowhere in code, configs, help and docs."""

import re
import subprocess

import pytest

from tests.paths import REPOSITORY

# old word -> the field's word. Whole words; `_` counts as a letter.
OLD = {
    r"h_s": "horizon_s",
    r"\w+_share": "_fraction, _prob or _ratio",
    r"(topk|hard|dead|noise|verb)_share\w*": "_fraction, _prob or _ratio",
    r"register_path|harden_at": "pre_routing, register_encoder, hard_after",
    r"shortest_span|smallest_crop|largest_crop|still_frame": "min_temporal_crop, crop_scale",
    r"positives_below|softness|kappa": "positives_in_denominator, negative_weight",
    r"text_pieces|goals_met|page_percent": "text_vocab_size, goals_satisfied, reported_success_rate",
    r"(Here|Scalar|Product|Residual|Axes|Ladder)Config": "see docs/architecture.md",
    r"[Dd]emonstrator": "expert",
    r"narrow_action|action_width": "project_action, action_dim",
    r"teaches_registers|own_register_path": "registers_trainable, has_register_encoder",
    r"CodeHealth|code_health": "CodebookStats, codebook_stats",
    r"part_of|choose_rows|choose_statistics": "subfolder_or_self, route_tokens, select_norm_stats",
    r"film_successes|MakeEpisodeRunner|MakeAttempt|MakeTrial": "record_success_videos, ...Factory",
    r"PRODUCT_NEUTRAL|product_key": "NON_HASHED_FIELDS, artifact_hash",
    r"main_first|shared_like|unsharded|together_on_cpu": "see training/distributed.py",
    r"Patient|_Flight|set_stage": "DiagnosticContext, Episode",
    r"_ActiveEpisode|EpisodeCoroutine|_met_death|suspects": "Episode, WorkerPool, jobs_to_isolate",
    r"error_answer|first_answer_s|--axes\S*": "error_response, first_response_s, --perturbations",
    r"told apart|dearer|dearest|nearness": "distinguished, more expensive, min_distance",
    r"an? arm of|arms of|(compared|trained) arms?|--arm": "variant, policy_name",
}
# words, also as parts of identifiers, in any case
BRITISH = (
    r"labell(er|ers|ing|ed)",
    r"\w*(colour|neighbour|behaviour|favour)\w*",
    r"(de|re|un)?(normal|initial|optim|quant|general|random|serial|summar|token|recogn|organ|visual)"
    r"is(e|es|ed|ing|ation|ations|er|ers)",
    r"\w*(modell|travell)(ed|ing)", r"centre[sd]?", r"(kilo|centi|milli)?metres?", r"artefacts?",
    r"grey\w*", r"catalogue", r"fulfil",
)  # fmt: skip
SKIPPED = ("tests/test_words.py", "LICENSE", "docs/images/")
BORDER = re.compile(r"_|(?<=[a-z0-9])(?=[A-Z])")  # between the words of an identifier


def texts() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.yaml", "*.md", "*.toml", "*.j2", "Makefile"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return [name for name in listed if not name.startswith(SKIPPED)]


def lines_with(pattern: re.Pattern[str], skipped: tuple[str, ...], parts: bool) -> list[str]:
    found = []
    for name in texts():
        if name.startswith(skipped):
            continue
        for number, line in enumerate((REPOSITORY / name).read_text().split("\n"), 1):
            if pattern.search(BORDER.sub(" ", line) if parts else line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    return found


@pytest.mark.parametrize("old", OLD)
def test_an_old_word_is_gone(old: str) -> None:
    found = lines_with(re.compile(rf"(?<!\w)(?:{old})(?!\w)"), ("docs/log.md",), parts=False)
    assert not found, f"write {OLD[old]}:\n" + "\n".join(found)


@pytest.mark.parametrize("british", BRITISH)
def test_spelling_is_american(british: str) -> None:
    pattern = re.compile(rf"(?<!\w)(?:{british})(?!\w)", re.IGNORECASE)
    found = lines_with(pattern, (), parts=True)
    assert not found, "write American spelling:\n" + "\n".join(found)


def test_parts_of_identifiers_are_words() -> None:
    assert BORDER.sub(" ", "LapaLabeler.center_crop") == "Lapa Labeler.center crop"
