"""Messages no client should send, and how a server answers them."""
