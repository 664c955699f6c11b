"""The stages: each a pure function from draft to draft, in the order of `compile.STAGES`."""
