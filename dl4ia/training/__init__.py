"""Augmentation, losses, optimizers, schedules and `fit`, which yields one result an epoch."""
