"""Whether what one session does shows in another, or in the next."""
