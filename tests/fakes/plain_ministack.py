"""The embedded AWS without the stream records of PartiQL statements, as ministack is by itself."""

from __future__ import annotations

from typing import Any

from service.local import ministack_child
from service.local.emulator import Emulator


class PlainEmulator(Emulator):
    """`Emulator`, but nothing that is written by `BatchExecuteStatement` shows in a table's stream."""

    def __init__(self) -> None:
        super().__init__()
        self._module = __name__


def _leave(_dynamodb: Any) -> None: ...  # noqa: ANN401 # a module of ministack's


if __name__ == "__main__":
    ministack_child.mend_partiql_stream_records = _leave
    ministack_child.main()
