"""What a teacher says about a text beyond its tokens.

A source gives a signal, a loss consumes it, and neither knows whether it was computed now or captured before.
"""

from __future__ import annotations
