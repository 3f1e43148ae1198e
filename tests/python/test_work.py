"""Which parts of a call are done beside the event loop."""

from __future__ import annotations

import numpy as np

from transferq._core import TENSOR, DataColumn
from transferq._impl.work import COLUMNS, are_heavy, is_heavy

ROW = np.zeros((1, 2), np.float32)


def test_a_batch_of_very_many_columns_is_encoded_and_decoded_beside_the_loop() -> None:
    assert not is_heavy({str(number): ROW for number in range(COLUMNS)})
    assert is_heavy({str(number): ROW for number in range(COLUMNS + 1)})
    column = DataColumn(("name", TENSOR, *[None] * 12))
    assert not are_heavy([column] * COLUMNS, 1)
    assert are_heavy([column] * (COLUMNS + 1), 1)
