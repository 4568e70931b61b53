"""What ``livepeer demo`` does: the three verbs for real, and whether each did what it should.

- `report`: the rows and checks that come out;
- `picture`, `clip` and `sound`: what goes in, made here or the user's own, and what must come back;
- `numbers` and `flashes`: frame numbers and flashes drawn into the video, and read again behind the filter;
- `calls` and `live` (with `exchange`): the verbs; `play` runs them all.
"""

from __future__ import annotations

__all__: list[str] = []
