"""The target `spaces`: a Space of the Hub, deployed, configured and put back as it was."""
