"""The target `docker`: an image found or built, one container's life, what it uses, its removal."""
