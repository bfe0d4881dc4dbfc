"""Lengths, areas, shape and colour of what a photo shows, each with its uncertainty and where its scale came from.

Scale           photo pixels -> millimetres: from a card, two points, a known field of view, or none
draw_outline    a lesion's outline from one point, or a refusal
measure         a length or an outline measured
measuring       the use case: permission, a bounded child, an Observation kept
"""
