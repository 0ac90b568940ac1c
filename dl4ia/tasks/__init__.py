"""What is studied, glands or digits: its networks, its scores and its pictures."""
