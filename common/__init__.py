"""What every GenServe process shares: the wire, errors, settings, sockets, logs and the clock."""
