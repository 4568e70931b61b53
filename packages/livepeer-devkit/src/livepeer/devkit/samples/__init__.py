"""Sample capabilities: ordinary runners written with `livepeer.runner`, short enough to be the examples.

===============  =========================================================================================
``echo``         gives back what it is given: JSON as JSON, bytes as bytes
``text-reverse`` ``{"text": "…"}`` → the text backwards
``llm-chat``     chat messages → tokens, one event each
``image-invert`` a picture's bytes → the picture with inverted colours, as PNG
``video-filter`` live video with an effect that can be changed while it runs
``word-count``   ``{"text": "…"}`` → how many words it has; reached by BYOC, the others as live runners
===============  =========================================================================================
"""

from __future__ import annotations

from .runners import SampleRunners

__all__ = ["SampleRunners"]
