"""The fault suite: known jobs, real workers, one fault at a time, and a check of all that has happened."""
