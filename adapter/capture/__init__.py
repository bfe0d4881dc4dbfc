"""Bytes become Media: receive, inspect, clean, render."""
