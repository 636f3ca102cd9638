"""Imported once by the process that test trainings are forked from: what torch loads late."""

import addgpt.cli
import addgpt.commands.train
import addgpt.parallel
import addgpt.progress
from addgpt import optim
from addgpt.model import GPT
from addgpt.settings import configure
from addgpt.train import train

CONFIG = configure("add", {"digits": "1", "width": "8", "heads": "2"})
OPTIMIZERS = optim.build(GPT(CONFIG.model), CONFIG.train)  # loads torch's compiler
__all__ = ["OPTIMIZERS", "addgpt", "train"]
