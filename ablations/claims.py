"""`python -m ablations.claims`: evaluates published claims by computation and stored results, without training."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ablations import cli

if TYPE_CHECKING:
    from ablations.config import Config

PURPOSE = "Evaluates published claims by computation and with the results of all stored studies."


def claims(config: Config, command: str) -> int:
    """Evaluates every claim, prints and writes the ledger; returns 0, or 1 if a part of it cannot be made."""
    from ablations.common.console import make_console, print_path, print_text
    from ablations.common.parts import Parts
    from ablations.ledger.assess import assess
    from ablations.ledger.page import CLAIMS_TRACEBACKS, print_ledger, write_ledger
    from ablations.reporting.text.not_made import not_made_notice
    from ablations.storage.paths import reference_url, results_folder, storage_url

    folder = results_folder(config)
    urls = [storage_url(config), reference_url(config)]  # the user's store, and the committed one
    parts = Parts()
    ledger = assess(urls, parts)
    console = make_console()
    print_ledger(ledger, console, parts)
    files = write_ledger(ledger, folder, command, parts)
    print_path(console, "Claims", *files)
    print_text(console, *not_made_notice(parts, parts.write_tracebacks(folder / CLAIMS_TRACEBACKS)))
    return 1 if parts.missing else 0


if __name__ == "__main__":
    sys.exit(cli.main("claims", PURPOSE, claims))
