"""One OpenEnv client on sockets: frames, handshake, connection, messages, HTTP, discovery. May import core."""
