"""Imported once by the process that test trainings are forked from: what torch loads late."""

import addgpt.cli.main
import addgpt.cli.train
import addgpt.training.distributed
import addgpt.training.progress
from addgpt.model.build import build
from addgpt.runs.resolve import configure
from addgpt.training import optim
from addgpt.training.loop import train

CONFIG = configure("add", {"digits": "1", "width": "8", "heads": "2"})
OPTIMIZERS = optim.build(build(CONFIG.model), CONFIG.train)  # loads torch's compiler
__all__ = ["OPTIMIZERS", "addgpt", "train"]
