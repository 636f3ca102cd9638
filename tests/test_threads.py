"""How many CPU threads are taken, and that they wait for one another without spinning."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from addgpt import device
from addgpt.cli.main import main
from addgpt.device import choose_threads, idle_cores, prepare, usable_cores
from addgpt.runs.run import Run
from addgpt.training.loop import train

pytestmark = pytest.mark.slow

LARGE = 1 << 20


@pytest.fixture
def machine(monkeypatch):
    """A machine of so many cores, of which so many are idle."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def make(cores: int, idle: int) -> None:
        monkeypatch.setattr(device, "usable_cores", lambda: cores)
        monkeypatch.setattr(device, "idle_cores", lambda: idle)

    return make


@pytest.fixture
def torch_threads():
    """Puts torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("weights", "tokens", "cores", "idle", "number"),
    [
        (0, 0, 64, 64, 1),  # nothing is known of the work
        (52_000, 1664, 64, 64, 1),  # the adder
        (408_000, 496, 64, 64, 1),  # products
        (408_000, 4096, 2, 2, 2),  # their evaluation
        (408_000, 1300, 64, 64, 3),  # as many as pay, not all there are
        (408_000, 4096, 2, 1, 1),  # a neighbour is at work
        (LARGE, LARGE, 64, 60, 60),
    ],
)
def test_threads_are_those_that_pay_and_are_free(machine, weights, tokens, cores, idle, number):
    machine(cores, idle)
    assert choose_threads(0, weights, tokens).number == number


def test_what_is_asked_for_wins(machine, monkeypatch):
    machine(64, 64)
    assert choose_threads(3, LARGE, LARGE) == (3, "as set")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert choose_threads(3, LARGE, LARGE).number == 3
    assert choose_threads(0, LARGE, LARGE).number == choose_threads(0).number == 5


def test_cores_are_counted():
    assert 1 <= idle_cores() <= usable_cores() <= os.cpu_count()


@pytest.mark.skipif(usable_cores() < 2, reason="needs a second core")
def test_a_core_that_another_process_keeps_busy_is_not_idle():
    spin = "print(flush=True)\nwhile True: pass"
    busy = subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE)
    try:
        busy.stdout.readline()
        assert idle_cores(0.5) < usable_cores()
    finally:
        busy.kill()
        busy.communicate()


def test_a_small_training_takes_one_thread(machine, toy_run, torch_threads):
    machine(4, 4)
    torch.set_num_threads(2)
    train(toy_run(threads=0, steps=1))
    assert torch.get_num_threads() == 1


def test_a_resumed_training_keeps_its_threads(machine, monkeypatch, toy_run, torch_threads):
    machine(2, 2)
    monkeypatch.setattr(device, "WORK_OF_A_THREAD", 1)
    monkeypatch.setattr("addgpt.training.loop.usable_cores", lambda: 2)
    run = toy_run(threads=0, steps=4)

    train(run)
    assert run.state()[1]["threads"] == 2
    machine(2, 1)
    for steps, told, threads in ((8, "", 2), (12, "5", 2), (16, "1", 1), (20, "5", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)  # never more than these, either
        torch.set_num_threads(3)
        run.reconfigure(replace(run.config, train=replace(run.config.train, steps=steps)))
        train(Run(run.path))
        assert torch.get_num_threads() == threads


def test_the_doctor_says_what_is_chosen_and_why(tmp_path):
    told = CliRunner().invoke(main, ["doctor", "--results", str(tmp_path)]).output
    line = next(line for line in told.splitlines() if "threads" in line)
    assert "for a small model" in line and "for a large one" in line


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_threads_wait_without_spinning_unless_the_user_says_so(monkeypatch, said):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if said:
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
    code = (
        "import os, sys; from click.testing import CliRunner; from addgpt.cli.main import main\n"
        "assert 'torch' not in sys.modules; CliRunner().invoke(main, ['tasks'])\n"
        "print(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (said or "PASSIVE")


def test_the_allocator_and_the_threads_are_set_together(torch_threads):
    assert prepare(2).number == torch.get_num_threads() == 2
