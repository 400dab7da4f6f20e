from __future__ import annotations

import subprocess
import sys

import pytest

from sqlbak.vault.holder import holder_name, is_known_dead

ASK = "from sqlbak.vault.holder import holder_name; print(holder_name())"


def test_we_are_not_dead() -> None:
    assert not is_known_dead(holder_name())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_a_process_of_this_machine_that_ended_is_known_to_be_dead() -> None:
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert is_known_dead(done.stdout.strip())


def test_a_process_of_another_machine_is_never_known_to_be_dead() -> None:
    name, _, rest = holder_name().partition(" ")
    assert not is_known_dead(f"{name} other-boot/pid:[1]:{rest.rpartition(':')[2]}")
    assert not is_known_dead("elsewhere:4711")
    assert not is_known_dead("")
