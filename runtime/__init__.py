"""How a pipeline runs: compiler, execution plan, executor, context and the store."""
