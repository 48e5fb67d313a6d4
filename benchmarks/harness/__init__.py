"""What the benchmark programs share: building the C files, the server, pinned clients, CPU of process trees, tables."""
