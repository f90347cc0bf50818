"""Names in C, and in C++, which includes the header: no keyword, no function of the source, each once."""

import re
from collections.abc import Iterable
from pathlib import Path

from signatures.contract import identifier

from .text import VARIABLES

FILES = sorted((Path(__file__).parent / "kernels").glob("*.c"))
KERNELS = {file.stem: file.read_text(encoding="utf-8") for file in FILES}
"""Functions that the source holds where they are called -> their text."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


KEYWORDS = _words("""
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const constexpr
    const_cast continue decltype default delete do double dynamic_cast else enum explicit export extern false final
    float for friend goto if import inline int long module mutable namespace new noexcept not not_eq nullptr operator or
    or_eq override private protected public register reinterpret_cast requires restrict return short signed sizeof
    static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename
    typeof union unsigned using virtual void volatile wchar_t while xor xor_eq
""")
LIBRARY = _words("""
    NULL EOF NAN INFINITY HUGE_VAL main assert errno memcpy memset memcmp memmove strlen printf sprintf fabs fabsf sqrtf
    powf sinf cosf tanf atan2f expf logf floorf ceilf rintf tanhf erff exp log tanh erf floor ceil round pow sqrt sin
    cos linux unix i386 stdin stdout stderr size_t ptrdiff_t offsetof int8_t int16_t int32_t int64_t uint8_t uint16_t
    uint32_t uint64_t
""")
OWN = frozenset({"state", "scratch", "all", "best", "at", "row", "column", "pixels", *VARIABLES, *KERNELS})
"""What the source itself calls things inside of a function."""

HEADERS = _words("""
    assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic
    stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype self_test
""")
"""Files that a model's own must not be called as."""


class Names:
    """Names in one place.

    Attributes:
        taken: Those that are taken.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Start with some that are taken besides those of the language."""
        self.taken = {*KEYWORDS, *LIBRARY, *OWN, *taken}

    def new(self, wish: str) -> str:
        """Return a name close to a wish, that nothing else has."""
        clean = re.sub(r"__+", "_", identifier(wish)).rstrip("_") or "x"
        name, count = clean, 1
        while name in self.taken:
            count += 1
            name = f"{clean}_{count}"
        self.taken.add(name)
        return name


def prefix(stem: str) -> str:
    """Return what a model's files and functions are called: its name as C takes it."""
    clean = identifier(stem)
    return f"x{clean}" if clean.lower() in HEADERS else clean
