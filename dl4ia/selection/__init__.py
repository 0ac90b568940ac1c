"""Who wins, and which of the winner's choices matter: by validation alone."""
