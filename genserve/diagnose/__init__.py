"""`genserve diagnose`: is this machine fit to serve, what is wrong, and which command mends it.

One file a topic, one small function a check. They look and never change anything; what they need to know of GenServe
they ask its rooms, where each fact has its owner.
"""
