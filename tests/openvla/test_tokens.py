"""Ids of actions, latent codes and text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.config_file import with_latent_tokens
from invact_vla.openvla.tokenizer import (
    EOS,
    SequenceBuilder,
    Tokenizer,
    collate,
    load_tokenizer,
    prompt_of,
    train_tokenizer,
)
from invact_vla.openvla.vocabulary import ActionTokens, LatentTokens
from tests.openvla.small import INSTRUCTIONS, debug_config

LLAMA = ActionTokens(32000)
TEXTS = [prompt_of(i) for i in INSTRUCTIONS]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 512)


@pytest.mark.parametrize(
    ("x", "token", "decoded"),
    [(-1.0, 31999, -0.996078431), (0.0, 31872, 0.0), (1.0, 31744, 0.996078431)],
)
def test_published_table(x: float, token: int, decoded: float) -> None:
    assert LLAMA.encode(np.array(x)) == token
    assert LLAMA.decode(np.array(token)) == pytest.approx(decoded, abs=1e-9)


def test_last_interval_and_ids_of_no_action() -> None:
    assert LLAMA.decode(np.array(31745)) == LLAMA.decode(np.array(31744))
    assert LLAMA.decode(np.array(5)) == LLAMA.decode(np.array(31744))
    assert LLAMA.decode(np.array(32010)) == LLAMA.decode(np.array(31999))
    assert LLAMA.first_id == 31744


@given(x=st.floats(-3, 3), vocab=st.integers(300, 40000), bins=st.integers(2, 256))
def test_round_trip_stays_within_half_a_bin(x: float, vocab: int, bins: int) -> None:
    tokens = ActionTokens(vocab, bins)
    ids = tokens.encode(np.array([x]))
    assert tokens.first_id <= ids[0] < vocab
    assert abs(tokens.decode(ids)[0] - np.clip(x, -1, 1)) <= 1 / (bins - 1) + 1e-12


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20))
def test_order_is_reversed_and_kept(xs: list[float]) -> None:
    values = np.sort(np.array(xs))
    assert (np.diff(LLAMA.encode(values)) <= 0).all()
    assert (np.diff(LLAMA.decode(LLAMA.encode(values))) >= 0).all()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_latent_codes_round_trip(codes: list[int]) -> None:
    latent = LatentTokens(tuple(range(385, 393)))
    ids = latent.encode(np.array(codes))
    assert latent.decode(ids).tolist() == codes
    assert latent.decode(np.array([0, 384, 393, 447])).tolist() == [-1] * 4


def test_latent_tokens_take_unused_rows() -> None:
    config = with_latent_tokens(debug_config(), 8)
    assert LatentTokens.of(config).ids == tuple(range(385, 393))
    with pytest.raises(UserError, match="63 unused"):
        with_latent_tokens(debug_config(), 64)
    with pytest.raises(UserError, match="no latent tokens"):
        LatentTokens.of(debug_config())
    with pytest.raises(ValueError, match="codes"):
        LatentTokens.of(config).encode(np.array([8]))


def test_tokenizer_is_deterministic_and_leaves_action_ids_free(tokenizer: Tokenizer) -> None:
    again = train_tokenizer(TEXTS[::-1], 512)
    assert again._files == tokenizer._files
    ids = [i for text in TEXTS for i in tokenizer.encode(text)]
    assert max(ids) < 512 - 256 and ids[0] == 1 and tokenizer.pad_token_id == 512


@pytest.mark.parametrize("text", [*TEXTS, "Zebra & quux; 12 (new) words\nhere!"])
def test_small_tokenizer_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@given(st.text(max_size=40))
def test_small_tokenizer_takes_any_text(text: str) -> None:
    ids = _shared().encode(text)
    assert ids[0] == 1 and all(0 <= i < 256 for i in ids)


_CACHE: list[Tokenizer] = []


def _shared() -> Tokenizer:
    if not _CACHE:
        _CACHE.append(train_tokenizer(TEXTS, 512))
    return _CACHE[0]


def test_tokenizer_file_round_trip(tokenizer: Tokenizer, tmp_path) -> None:
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path, 512)
    assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    assert (loaded.separator_id, loaded.pad_token_id) == (tokenizer.separator_id, 512)
    with pytest.raises(UserError, match="no tokenizer"):
        load_tokenizer(tmp_path / "nothing", 512)


def test_sequence_and_collation(tokenizer: Tokenizer) -> None:
    builder = SequenceBuilder(tokenizer, tokenizer.separator_id)
    examples = [builder.example(i, [300, 301]) for i in INSTRUCTIONS]
    for (ids, labels), instruction in zip(examples, INSTRUCTIONS, strict=True):
        assert ids[-3:] == labels[-3:] == [300, 301, EOS]
        assert ids[-4] == tokenizer.separator_id
        assert ids[:-3] == builder.prompt(instruction) and set(labels[:-3]) == {-100}
    batch = collate(examples, tokenizer.pad_token_id)
    assert batch["input_ids"].shape[1] % 8 == 0
    assert (batch["attention_mask"].sum(1).tolist()) == [len(ids) for ids, _ in examples]
    assert ((batch["input_ids"] == 512) == (batch["attention_mask"] == 0)).all()
