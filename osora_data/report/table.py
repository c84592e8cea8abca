"""Which keys have come before, in bounded memory."""

MOST_KEYS = 1 << 18
_ALL = (1 << 64) - 1
_WORD = (1 << 32) - 1


class Table:
    """Hashes of 64 bits, each with the line that it first came on and 32 bits of a value: about 100 bytes each.

    Of more keys than there is room for, those below a bound are kept, which halves each time that room runs out. All
    that comes of one key is seen or none of it, so `weight`, what a sighting stands for, makes sums over sightings
    estimates without bias.
    """

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._most_keys = most_keys
        self._bound = _ALL
        self._entries: dict[int, int] = {}
        self.weight = 1

    @property
    def is_sample(self) -> bool:
        """Whether some keys are not kept."""
        return self.weight > 1

    def first(self, key: int, line: int, value: int) -> tuple[int, bool] | None:
        """The line that a key first came on, and whether it had this value; None if it is new (and then kept) or none
        of those that are kept. Keys and values are hashes as Python makes them."""
        key &= _ALL
        if key > self._bound:
            return None
        entry = line << 32 | value & _WORD
        before = self._entries.setdefault(key, entry)
        if before is not entry:
            return before >> 32, before & _WORD == value & _WORD
        if len(self._entries) > self._most_keys:
            self._bound >>= 1
            self.weight *= 2
            self._entries = {key: entry for key, entry in self._entries.items() if key <= self._bound}
        return None
