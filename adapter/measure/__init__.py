"""Lengths, areas, shape and colour of what a photo shows, each with its uncertainty and where its scale came from.

    scale, card        photo pixels -> millimetres, from a card, two points or a known field of view
    outline            a lesion's outline from one point, or a refusal
    measures, colour   what a line or an outline measures
    measuring          the use case: permission, the bounded child, an Observation kept or withdrawn

What needs pixels runs in the child (`child.py`); the service itself imports neither NumPy nor OpenCV for it.
"""
