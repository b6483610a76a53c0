"""Usage and cost exports of vendors: a module for each vendor, which turns rows into items."""
