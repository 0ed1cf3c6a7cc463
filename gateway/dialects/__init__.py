"""Translations: request body <-> job, result <-> response. Pure: no sockets, no aiohttp, no time, no chance."""
