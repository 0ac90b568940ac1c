"""The winner, trained on all images and scored on the test set, which only its lock opens."""
