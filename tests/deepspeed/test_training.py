"""Goal: ZeRO stage 3 with parameters and optimizer states in files trains as it does without, to the last bit.
Method: the same few steps in processes of their own, losses compared exactly; a swapped checkpoint saved and loaded."""

from __future__ import annotations

import pytest
from conftest import train

OURS = ["tensorshelf.aio.aio_handle"]
SWAPPERS = {
    "parameters": {"AsyncPartitionedParameterSwapper"},
    "optimizer": {"PartitionedOptimizerSwapper"},
    "pipelined": {"PipelinedOptimizerSwapper"},
    "all": {"AsyncPartitionedParameterSwapper", "PartitionedOptimizerSwapper"},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    result = train("none", tmp_path_factory.mktemp("plain"))
    assert result["swapped"] == 0
    assert len(set(result["losses"])) == len(result["losses"]), "training changes something"
    return result


@pytest.mark.parametrize("mode", ["parameters", "optimizer", "pipelined"])
def test_losses_are_equal_to_the_last_bit(installed, folder, plain, mode):
    result = train(mode, folder)
    assert result["accelerator"] == "cpu"
    assert set(result["swappers"]) == SWAPPERS[mode]
    assert all(handles == OURS for handles in result["swappers"].values()), result["swappers"]
    assert result["swapped"] > 0
    assert result["losses"] == plain["losses"]


def test_a_swapped_checkpoint_goes_on_where_it_was(installed, folder):
    saved = train("all", folder, "save")
    assert set(saved["swappers"]) == SWAPPERS["all"]
    assert saved["swapped"] > 0
    loaded = train("all", folder, "load")
    assert loaded["losses"] == saved["losses"][len(saved["losses"]) // 2 :]
