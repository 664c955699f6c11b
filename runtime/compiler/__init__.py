"""From a pipeline to a plan, in named stages that can be stopped after and looked at."""
