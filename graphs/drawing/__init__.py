"""Pictures of pipelines: one `Picture`, several ways to write it down."""
