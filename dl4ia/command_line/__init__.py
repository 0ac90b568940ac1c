"""The flags of a study, and how a command ends. Imports nothing heavy."""
