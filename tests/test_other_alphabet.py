"""Weights that go from a text to one of other characters."""

import pytest
import torch

from addgpt.model.build import build
from addgpt.runs.resolve import configure
from tests.helpers.texts import TINY, run_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shape", [{"tied": "false"}, {"tied": "true"}, {"embed_rank": "2"}])
def test_weights_go_to_another_alphabet_by_character(tmp_path, shape, monkeypatch):
    monkeypatch.setenv("ADDGPT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "old.txt").write_text("bca " * 40)
    (tmp_path / "new.txt").write_text("xa!c " * 40)
    run = run_of("shakespeare", tmp_path / "old.txt", tmp_path / "old", block="4", **shape)
    old = run.model()
    config = configure(
        "shakespeare", TINY | {"corpus": str(tmp_path / "new.txt"), "block": "4"} | shape, 7
    )
    new, fresh = build(config.model, 7), build(config.model, 7)
    new.load_state_dict(run.weights_for(config.model, config.options["characters"], 7))
    by_token = ("token.weight", "token.weight.left", "head.weight", "head.weight.left")
    tables = [m.state_dict() for m in (old, new, fresh)]
    for name in set(by_token) & set(tables[0]):
        before, after, drawn = (table[name] for table in tables)
        for row, char in enumerate(" !acx"):
            if char in " ac":
                assert torch.equal(after[row], before[" abc".index(char)])
            else:
                assert torch.equal(after[row], drawn[row])
    for (name, one), (_, other) in zip(old.named_parameters(), new.named_parameters(), strict=True):
        assert name in by_token or torch.equal(one, other)
    text = torch.tensor([[" abc".index(char) for char in "ac a"]])
    other = torch.tensor([[" !acx".index(char) for char in "ac a"]])
    ids = torch.zeros(1, 5, 0).long()
    with torch.no_grad():
        known = old(text, ids)[..., [0, 1, 3]]  # logits of " ac"
        assert torch.allclose(known, new.eval()(other, ids)[..., [0, 2, 3]], atol=1e-6)
