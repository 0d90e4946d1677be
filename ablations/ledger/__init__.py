"""The ledger: the published claims about shuffle attention, each with the verdict of what was computed or trained."""
