"""What a study found, for every reader: terminal, page, dashboard."""
