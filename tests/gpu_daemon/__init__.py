"""The GPU daemon: its pure session, its processes, and the two together over real sockets."""
