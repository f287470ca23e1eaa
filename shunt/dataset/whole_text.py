"""Texts that UTF-8 can hold. JSON can write half a surrogate pair (`"\\ud800"`), which is none."""


def is_whole(text: str) -> bool:
    """Whether the text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def whole_text(text: str) -> str:
    """With U+FFFD for each half surrogate: no file in UTF-8 can hold one."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
