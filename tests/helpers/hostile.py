"""What tests of files from strangers share."""

import json
from pathlib import Path

import pytest

from addgpt.runs.run import Run, RunError


def refused(act) -> str:
    with pytest.raises((RunError, ValueError)) as caught:
        act()
    text = str(caught.value)
    assert text and "\n" not in text and len(text) < 1000
    return text


def edited(run: Run, part: str, **values) -> Path:
    """The run with other settings in its config, and no checksums."""
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    (config[part] if part else config).update(values)
    file.write_text(json.dumps(config))
    (run.path / "SHA256SUMS").unlink(missing_ok=True)
    return run.path
