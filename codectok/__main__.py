"""`python -m codectok`."""

from __future__ import annotations

from codectok.cli.main import main

if __name__ == "__main__":
    main()
