"""Outward only: how photos get into other systems. Knows no database, session or page; never imports `adapter`."""
