"""Training that was stopped and resumed, against training in one go."""

import torch

from addgpt.training.loop import Loop, train


def check_resumed(whole, part, plain) -> None:
    """Two runs of one config, one stopped after two steps, end with the same weights; a run without
    what is tested has as many weights, and others."""
    train(whole)
    loop = Loop(part)
    for _ in range(2):
        loop.advance()
    loop.save()
    train(part)
    train(plain)
    one, other, third = (run.model().state_dict() for run in (whole, part, plain))
    assert one.keys() == third.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)
