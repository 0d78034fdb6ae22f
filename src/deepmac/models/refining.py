"""What a model, a predictor and a labelling job can be told about refining masks."""

from typing import Literal, get_args

Refine = Literal["none", "edges", "full"]
"""``none``: masks as the network gives them; ``edges``: snapped to the picture's colours and edges,
without specks, a few milliseconds a box; ``full``: with more looks at the picture beforehand."""

REFINES: tuple[Refine, ...] = get_args(Refine)
