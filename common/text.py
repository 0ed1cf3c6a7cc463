"""Text cut to the room that there is, counted in bytes of UTF-8, never within a character. Pure."""


def clip(text: str, bytes_max: int) -> str:
    """`text`, or as much of it as fits, ending in '…'."""
    if len(text) * 4 <= bytes_max or len(data := text.encode("utf-8", "replace")) <= bytes_max:
        return text
    return data[: bytes_max - len("…".encode())].decode("utf-8", "ignore") + "…"
