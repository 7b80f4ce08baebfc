"""Tables print the text of their cells as it is."""
from __future__ import annotations

import pytest
from rich.table import Table

from prefork_lb.cli.tables import print_table


@pytest.mark.parametrize("text", ["[fd00::1]:8001", "[/x]", ":smile:"])
def test_a_cell_is_text_and_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An IPv6 address in brackets lost them with all in between; a server's name could end the command."""
    table = Table("server")
    table.add_row(text)
    print_table(table, folds="server")
    assert text in capsys.readouterr().out
