"""The report's own trainings, as it trained them, and its tables beside ours."""
