"""Every action head: batches, losses, decoding; and OFT's attention, which looks both ways."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.checkpoint import (
    VLACheckpoint,
    load_pretrained,
    save_pretrained,
)
from invact_vla.openvla.checkpoints.config_file import config_from_json, config_to_json
from invact_vla.openvla.config import (
    HeadConfig,
    OftHeadConfig,
    TextHeadConfig,
    TokensHeadConfig,
)
from invact_vla.openvla.heads import ActionHead, action_head
from invact_vla.openvla.heads.text import TextHead
from invact_vla.openvla.vocabulary import ActionTokens
from tests.openvla.small import INSTRUCTIONS, debug_config, pixels, tiny

HEADS = {
    **{name: kind() for name, kind in HeadConfig.get_known_choices().items()},
    "oft, a slot per action": OftHeadConfig(slots_per_action=1, learned_slots=True),
    "oft, tokens": OftHeadConfig(output="tokens"),
    "text": TextHeadConfig(steps=20),
}
CHUNK = 3


def policy_of(head: HeadConfig) -> VLACheckpoint:
    config = debug_config(
        head=head,
        chunk=CHUNK,
        proprio_dim=8,
        cameras=("agentview", "wrist"),
        constrain_actions=True,
    )
    return tiny(config)


def inputs_of(head: ActionHead, pretrained: VLACheckpoint) -> dict[str, torch.Tensor]:
    actions = np.random.default_rng(0).uniform(-1, 1, (2, CHUNK, 7))
    batch = head.batch(INSTRUCTIONS[:2], actions)
    batch["pixel_values"] = pixels(2, pretrained.config)
    batch["proprio"] = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    return batch


@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_one_batch_and_decodes_it(name: str) -> None:
    torch.manual_seed(0)
    pretrained = policy_of(HEADS[name])
    model, head = pretrained.model.train(), action_head(pretrained)
    batch = inputs_of(head, pretrained)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(150):
        loss, metrics = head.loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        assert metrics
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    found = head.decode(model, INSTRUCTIONS[:2], batch["pixel_values"], batch["proprio"])
    assert found.shape == (2, CHUNK, 7) and found.dtype == np.float64
    wanted = np.random.default_rng(0).uniform(-1, 1, (2, CHUNK, 7))
    guess = np.abs(wanted - wanted.mean()).mean()
    assert np.abs(found - wanted).mean() < guess  # better than a constant


@pytest.mark.parametrize("name", HEADS)
def test_a_head_survives_its_folder(name: str, tmp_path) -> None:
    pretrained = policy_of(HEADS[name])
    save_pretrained(pretrained, tmp_path / "model")
    again = load_pretrained(tmp_path / "model")
    assert again.config.invact.head == HEADS[name]
    batch = inputs_of(action_head(pretrained), pretrained)
    decoded = [
        action_head(p).decode(p.model, INSTRUCTIONS[:2], batch["pixel_values"], batch["proprio"])
        for p in (pretrained, again)
    ]
    assert np.array_equal(*decoded)


@pytest.mark.parametrize("name", HEADS)
def test_together_as_alone(name: str) -> None:
    pretrained = policy_of(HEADS[name])
    head = action_head(pretrained)
    batch = inputs_of(head, pretrained)
    views, state = batch["pixel_values"], batch["proprio"]
    both = head.decode(pretrained.model, INSTRUCTIONS[:2], views, state)
    for i in range(2):
        one = slice(i, i + 1)
        alone = head.decode(pretrained.model, INSTRUCTIONS[one], views[one], state[one])
        assert np.abs(alone[0] - both[i]).max() < 1e-5


def test_attention_is_bidirectional() -> None:
    """A change at the last slot reaches the first, and a change of the words reaches the patches; in
    the causal pass neither does."""
    pretrained = policy_of(OftHeadConfig(slots_per_action=1, learned_slots=True))
    model, head = pretrained.model, action_head(pretrained)
    batch = inputs_of(head, pretrained)
    before = model(**batch).hidden
    with torch.no_grad():
        model.action_slots[-1] += 1.0
    after = model(**batch).hidden
    assert (after - before)[:, 0].abs().max() > 1e-6
    batch.pop("actions"), batch.pop("slots")
    plain = model(**batch).logits
    batch["input_ids"][:, -1] = 5
    batch["attention_mask"][:] = 1
    changed = model(**batch).logits
    assert torch.equal(plain[:, 0], changed[:, 0])  # causal: BOS sees nothing that follows


def test_published_slots_have_zero_embeddings() -> None:
    """What ids stand at the slots changes nothing."""
    pretrained = policy_of(OftHeadConfig())
    head = action_head(pretrained)
    batch = inputs_of(head, pretrained)
    before = pretrained.model(**batch).actions
    for row, places in zip(batch["input_ids"], batch["slots"], strict=True):
        row[places] = torch.randint(3, 300, (len(places),))
    assert torch.equal(pretrained.model(**batch).actions, before)


def test_slots_stand_behind_each_prompt() -> None:
    pretrained = policy_of(OftHeadConfig())
    head = action_head(pretrained)
    batch = inputs_of(head, pretrained)
    for text, places, ids in zip(INSTRUCTIONS, batch["slots"], batch["input_ids"], strict=False):
        prompt = head.prompt(text)
        assert places.tolist() == list(range(len(prompt), len(prompt) + 7 * CHUNK))
        assert ids[: len(prompt)].tolist() == prompt
        assert ids[len(prompt) + 7 * CHUNK] == 2  # EOS


def test_discrete_slots_are_decoded_among_actions() -> None:
    pretrained = policy_of(OftHeadConfig(output="tokens"))
    head = action_head(pretrained)
    batch = inputs_of(head, pretrained)
    out = pretrained.model(**{n: v for n, v in batch.items() if n != "labels"})
    tokens = ActionTokens.of(pretrained.config)
    ids = out.logits[..., tokens.first_id : tokens.vocab_size].argmax(-1) + tokens.first_id
    wanted = tokens.decode(ids.numpy()).reshape(2, CHUNK, 7)
    found = head.decode(pretrained.model, INSTRUCTIONS[:2], batch["pixel_values"], batch["proprio"])
    assert np.array_equal(found, wanted)


@given(st.lists(st.floats(-3, 3), min_size=21, max_size=21), st.integers(1, 2000))
def test_numbers_in_words_and_back(values: list[float], steps: int) -> None:
    head = text_head(steps)
    actions = np.array(values).reshape(CHUNK, 7)
    back = head.read(head.text(actions))
    assert np.abs(back - np.clip(actions, -1, 1)).max() <= 1 / steps + 1e-9


@given(st.text(alphabet="0123456789 -.x", max_size=80))
def test_any_answer_can_be_read(text: str) -> None:
    found = text_head(1000).read(text)
    assert found.shape == (CHUNK, 7) and np.abs(found).max() <= 1


def test_numbers_out_of_range_and_missing_ones() -> None:
    head = text_head(10)
    found = head.read("0 10 99 5").reshape(-1)
    assert found[:4].tolist() == [-1, 1, 1, 0] and not found[4:].any()


def text_head(steps: int) -> TextHead:
    head = TextHead.__new__(TextHead)
    config = debug_config(head=TextHeadConfig(steps=steps), chunk=CHUNK)
    ActionHead.__init__(head, config, None)  # type: ignore[arg-type]
    return head


def test_config_json_names_the_head() -> None:
    config = debug_config(head=OftHeadConfig(blocks=1), chunk=CHUNK)
    value = config_to_json(config)
    assert value["invact"]["head"]["type"] == "oft"
    assert config_from_json(value, "here") == config
    del value["invact"]["head"]  # as folders from before have it
    assert config_from_json(value, "here").invact.head == TokensHeadConfig()
    value["invact"]["head"] = {"type": "diffusion"}
    known = ", ".join(sorted(HeadConfig.get_known_choices()))
    with pytest.raises(UserError, match=f"known are {known}"):
        config_from_json(value, "here")
    with pytest.raises(ValueError, match="slots_per_action"):
        replace(OftHeadConfig(), slots_per_action=0)
